"""What Charter knows of a tool: the manifest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.base import JsonObject, Model

Risk = Literal["low", "medium", "high"]
SideEffects = Literal["none", "reversible", "irreversible"]


class ShownArgument(Model):
    """How one argument is shown to an approver. ``pointer`` is a JSON pointer (RFC 6901) into the arguments."""

    pointer: str
    how: Literal["whole", "masked", "counted", "summarised"] = "whole"
    label: str | None = None


class DryRun(Model):
    """A call of the same upstream that previews the real one: its tool name and arguments to add or replace."""

    tool: str
    arguments: JsonObject = Field(default_factory=dict)


class ToolManifest(Model):
    """One governed tool. ``name`` is ``server__tool``; ``definition_hash`` is the pin of what the upstream offered.

    ``sensitive_arguments`` and ``sensitive_results`` are JSON pointers (``/password``, ``/card/number``, ``*`` matches one
    level); ``""`` means the whole value. Times are seconds.
    """

    name: str
    server: str
    upstream_name: str
    title: str | None = None
    description: str = ""
    input_schema: JsonObject
    output_schema: JsonObject | None = None
    annotations: JsonObject = Field(default_factory=dict)
    definition_hash: str
    risk: Risk = "high"
    side_effects: SideEffects = "irreversible"
    idempotent: bool = False
    sensitive_arguments: tuple[str, ...] = ()
    sensitive_results: tuple[str, ...] = ()
    show: tuple[ShownArgument, ...] = ()
    dry_run: DryRun | None = None
    timeout_seconds: int = Field(default=60, ge=1, le=86_400)
    tags: tuple[str, ...] = ()
    roles: tuple[str, ...] = Field(
        default=(), description="Principals with one of these roles may use the tool; empty means any."
    )

    @property
    def repeatable(self) -> bool:
        """Whether the same call may be sent twice: it does no more than once, or it does nothing at all."""
        return self.idempotent or self.side_effects == "none"


class Quarantine(Model):
    """Why a tool may not be called: its definition no longer matches the pin. ``diff`` is readable text."""

    tool: str
    pinned_hash: str
    offered_hash: str | None
    diff: str
