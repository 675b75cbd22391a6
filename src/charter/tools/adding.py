"""For ``charter upstream add`` and ``charter tools pin``: ask an upstream what it offers, propose or renew manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import anyio
import mcp_types as types

from charter.errors import Misconfigured, Unavailable
from charter.manifests.arguments import compile_schema
from charter.manifests.definitions import definition_hash, propose_manifest
from charter.manifests.tool_files import HttpConnection, StdioConnection, UpstreamManifest
from charter.model.base import JsonObject
from charter.model.tool import DryRun, ToolManifest
from charter.tools.connecting import Hooks, Sources, Stderr, open_client
from charter.tools.upstream import MAX_PAGES, describe

DISCOVER_SECONDS = 60.0


async def discover(
    server: str, connection: StdioConnection | HttpConnection, sources: Sources, *, seconds: float = DISCOVER_SECONDS
) -> list[JsonObject]:
    """The tools that the upstream offers, as ``tools/list`` entries in JSON.

    Raises ``Unavailable`` (``upstream_unavailable``) with what the child last wrote to its standard error, and
    ``Misconfigured`` for a reference that is not set.
    """
    stderr = Stderr()
    manifest = UpstreamManifest(server=server, connection=connection)
    found: list[JsonObject] = []
    try:
        with anyio.fail_after(seconds):
            async with open_client(manifest, sources, Hooks(), stderr) as client:
                cursor: str | None = None
                for _ in range(MAX_PAGES):
                    params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
                    page = await client.session.list_tools(params=params)
                    found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
                    cursor = page.next_cursor
                    if not cursor:
                        break
    except Misconfigured:
        raise
    except Exception as error:
        said = f" Its standard error ended with: {stderr.text()[-500:]}" if stderr.text() else ""
        raise Unavailable(
            f"The upstream {server} could not be asked: {describe(error).rstrip('.')}.{said}",
            code="upstream_unavailable",
            next_step="Check the command or URL and its credentials by hand, then try again.",
        ) from None
    return found


def propose(
    server: str, connection: StdioConnection | HttpConnection, offered: Iterable[Mapping[str, Any]]
) -> tuple[UpstreamManifest, tuple[str, ...]]:
    """A manifest for the upstream with every tool that can be governed, and why the others cannot."""
    tools: dict[str, ToolManifest] = {}
    left_out: list[str] = []
    for tool in offered:
        try:
            compile_schema(tool["inputSchema"], what=f"The input schema of {tool['name']}")
            manifest = propose_manifest(server, tool)
            if manifest.name in tools:
                left_out.append(
                    f"{tool['name']}: {tools[manifest.name].upstream_name} has the name {manifest.name} already"
                )
            else:
                tools[manifest.name] = manifest
        except Exception as error:
            left_out.append(f"{tool['name']}: {describe(error)}")
    proposed = _with_previews(list(tools.values()))
    return UpstreamManifest(server=server, connection=connection, tools=proposed), tuple(left_out)


def repin(manifest: ToolManifest, offered: Mapping[str, Any]) -> ToolManifest:
    """The manifest with the definition that the upstream offers now; what a person decided about it stays."""
    return manifest.model_copy(
        update={
            "title": offered.get("title") or manifest.title,
            "description": offered.get("description") or "",
            "input_schema": dict(offered["inputSchema"]),
            "output_schema": offered.get("outputSchema"),
            "annotations": dict(offered.get("annotations") or {}),
            "definition_hash": definition_hash(offered),
        }
    )


def _with_previews(tools: list[ToolManifest]) -> tuple[ToolManifest, ...]:
    """``preview_X`` or ``dry_run_X`` without side effects and with the same arguments is proposed as X's dry run."""
    by_name = {tool.upstream_name: tool for tool in tools}
    return tuple(_with_preview(tool, by_name) for tool in tools)


def _with_preview(tool: ToolManifest, by_name: Mapping[str, ToolManifest]) -> ToolManifest:
    for prefix in ("preview_", "dry_run_"):
        preview = by_name.get(prefix + tool.upstream_name)
        if preview is not None and preview.side_effects == "none" and _same_arguments(preview, tool):
            return tool.model_copy(update={"dry_run": DryRun(tool=preview.upstream_name)})
    return tool


def _same_arguments(one: ToolManifest, other: ToolManifest) -> bool:
    return bool(one.input_schema.get("properties") == other.input_schema.get("properties"))
