"""The governed tools of a process that calls none: a command that decides and reads beside the server.

It knows them as their files say, and loads nothing of what a connection needs, which is most of what there is to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from charter.manifests.built_in import BUILT_IN
from charter.manifests.tool_files import UpstreamManifest
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.tool import Quarantine, ToolManifest
from charter.tools.folder import by_server


class UnconnectedTools:
    """The tools as pinned. Raises ``Misconfigured`` when two files describe one upstream."""

    def __init__(self, manifests: Sequence[UpstreamManifest]) -> None:
        listed = {tool.name: tool for upstream in by_server(manifests).values() for tool in upstream.tools}
        self._tools = {**BUILT_IN, **listed}

    def find(self, name: str) -> ToolManifest | None:
        """The manifest of this tool."""
        return self._tools.get(name)

    def quarantine(self, name: str) -> Quarantine | None:
        """None: what the upstream offers is known to the server only."""
        return None

    def all(self) -> tuple[ToolManifest, ...]:
        """Every governed tool, by name."""
        return tuple(self._tools[name] for name in sorted(self._tools))


class UnconnectedRunner:
    """Runs nothing, and says so."""

    async def run(self, effect: Effect, **_: Any) -> EffectOutcome:
        """The effect did not run."""
        return EffectOutcome(
            status="failed",
            is_error=True,
            error_code="upstream_unavailable",
            error_message=f"{effect.tool.name}: this process is connected to no upstream.",
        )

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None:
        """No preview, where there could be one."""
        return None if manifest.dry_run is None else "(No preview: the preview tool is not available.)"
