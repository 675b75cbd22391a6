"""``tools/list``: Charter's own tools, then every governed tool that this principal could use, under its own name."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from charter.errors import InvalidInput
from charter.model.base import JsonObject
from charter.model.tool import ToolManifest
from charter.server.mcp.schemas import IDS, listed_input, listed_output

PAGE = 1000
_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Listed:
    """A governed tool as it is listed. ``wrapped``: its own arguments stand under ``arguments``.

    ``header_schema``: the listed schema where it wants arguments repeated in HTTP headers, for the transport to compare.
    """

    manifest: ToolManifest
    wrapped: bool
    modern: JsonObject
    legacy: JsonObject
    header_schema: JsonObject | None

    def own_arguments(self, given: JsonObject) -> JsonObject:
        """The tool's own arguments among what a caller sent."""
        if self.wrapped:
            inner = given.get("arguments", {})
            if not isinstance(inner, dict):
                raise InvalidInput("arguments must be a JSON object.", detail={"fields": ["arguments"]})
            return inner
        return {key: value for key, value in given.items() if key not in IDS}


@dataclass(slots=True)
class GovernedListing:
    """Makes and remembers how governed tools are listed."""

    _known: dict[str, Listed] = field(default_factory=dict)

    def of(self, manifest: ToolManifest) -> Listed:
        """How this tool is listed; made once a manifest."""
        known = self._known.get(manifest.name)
        if known is None or known.manifest is not manifest:
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            known = self._known[manifest.name] = _listed(manifest)
        return known


def _listed(manifest: ToolManifest) -> Listed:
    schema, wrapped = listed_input(manifest.input_schema)
    common: JsonObject = {
        "name": manifest.name,
        "description": _description(manifest, wrapped),
        "inputSchema": schema,
        "_meta": {
            "io.charter/risk": manifest.risk,
            "io.charter/side_effects": manifest.side_effects,
            "io.charter/server": manifest.server,
        },
    }
    if manifest.title:
        common["title"] = manifest.title
    if manifest.annotations:
        common["annotations"] = manifest.annotations
    modern, legacy = dict(common), dict(common)
    for tool, objects_only in ((modern, False), (legacy, True)):
        output = listed_output(manifest.output_schema, objects_only=objects_only)
        if output is not None:
            tool["outputSchema"] = output
    return Listed(manifest, wrapped, modern, legacy, schema if "x-mcp-header" in repr(schema) else None)


def _description(manifest: ToolManifest, wrapped: bool) -> str:
    where = " Its own arguments stand under `arguments`." if wrapped else ""
    asks = (
        "" if (manifest.risk, manifest.side_effects) == ("low", "none") else " A person's approval may be needed first."
    )
    return (
        f"{manifest.description}\n\n[Governed by Charter: send workflow_id and agent_invocation_id from start_workflow with it."
        f"{where} Risk {manifest.risk}.{asks}]"
    ).strip()


def page_of(names: Sequence[str], cursor: str | None) -> tuple[int, int, str | None]:
    """Where a page begins and ends among names in order, and the next cursor. Raises ``InvalidInput``.

    A cursor is the last name of the page before, so a list that changed meanwhile is read on from the right place.
    """
    start = 0
    if cursor is not None:
        try:
            last = base64.urlsafe_b64decode(cursor.encode()).decode()
            start = names.index(last) + 1
        except (ValueError, binascii.Error, UnicodeError):
            raise InvalidInput("The cursor is not one of this list.", next_step="List again without one.") from None
    end = start + PAGE
    after = base64.urlsafe_b64encode(names[end - 1].encode()).decode() if end < len(names) else None
    return start, end, after
