"""What a simulation came to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from charter.model.base import Json, JsonObject

Status = Literal["completed", "failed", "rejected", "cancelled", "waiting"]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Simulation:
    """The path of a simulated run, read from its record.

    ``status`` is how the run ended, or ``waiting``: then ``waits_for`` says for whom or what. ``events`` are the record of
    this run and of the runs that its steps started, in order, as ``charter audit`` would show them; sensitive arguments are
    redacted there as anywhere. ``refused`` are scripted answers that the gate refused, ``unused`` scripted answers and
    fixtures that nothing asked for.
    """

    workflow_id: str
    template: str
    status: Status
    output: Json
    reason: str | None
    waits_for: tuple[str, ...]
    events: tuple[Event, ...]
    refused: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    _steps: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> dict[str, str]:
        """Each step of the template and its state."""
        return dict(self._steps)

    @property
    def calls(self) -> list[JsonObject]:
        """The simulated calls, in order: ``step_id``, ``tool``, ``arguments``, ``attempt``, ``approval_ids``."""
        names = ("step_id", "tool", "arguments", "attempt", "approval_ids")
        return [{name: data.get(name) for name in names} for data in self.of("TOOL_INVOKE")]

    @property
    def decisions(self) -> list[JsonObject]:
        """The policy's verdicts: ``action``, ``about``, ``verdict``, ``code``, ``policy_ids``, ``reason``."""
        names = ("action", "verdict", "code", "policy_ids", "reason")
        return [
            {"about": (data.get("facts") or {}).get("resource_id"), **{name: data.get(name) for name in names}}
            for data in self.of("POLICY_DECISION")
        ]

    @property
    def asked(self) -> list[JsonObject]:
        """The requests to people: ``step_id``, ``tool`` (or None) and the ``requirements``."""
        requests = [data["request"] for data in self.of("APPROVAL_REQUESTED")]
        return [{name: item.get(name) for name in ("step_id", "tool", "requirements")} for item in requests]

    @property
    def branches(self) -> dict[str, Json]:
        """The value of each condition that was reached."""
        done = (data for data in self.of("WORKFLOW_STEP") if data["status"] == "completed")
        return {data["step_id"]: data["output"]["value"] for data in done if data["step_type"] == "condition"}

    def of(self, type: str) -> list[JsonObject]:
        """The data of each event of this type, such as ``WORKFLOW_STEP``."""
        return [event["data"] for event in self.events if event["type"] == type]

    def as_json(self) -> JsonObject:
        """All of it as plain data."""
        return {
            "template": self.template,
            "status": self.status,
            "output": self.output,
            "reason": self.reason,
            "waits_for": list(self.waits_for),
            "steps": self.steps,
            "branches": self.branches,
            "calls": self.calls,
            "decisions": self.decisions,
            "asked": self.asked,
            "refused": list(self.refused),
            "unused": list(self.unused),
            "events": list(self.events),
        }
