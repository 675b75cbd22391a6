"""For ``charter upstream add`` and ``charter tools pin``: ask an upstream what it offers, propose or renew manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from charter.errors import CharterError, Misconfigured, Unavailable
from charter.manifests.arguments import compile_schema
from charter.manifests.definitions import definition_hash, propose_manifest
from charter.manifests.tool_files import HttpConnection, StdioConnection, UpstreamManifest
from charter.model.base import JsonObject
from charter.model.tool import DryRun, ToolManifest
from charter.tools.connecting import Hooks, Sources, Stderr, open_client
from charter.tools.listing import listed
from charter.tools.upstream import describe

DISCOVER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Discovered:
    """What an upstream offers, as ``tools/list`` entries in JSON; ``refused``: each tool that cannot be used, why, the mend."""

    tools: list[JsonObject]
    refused: tuple[str, ...] = ()


async def discover(
    server: str, connection: StdioConnection | HttpConnection, sources: Sources, *, seconds: float = DISCOVER_SECONDS
) -> Discovered:
    """Ask the upstream for its tools, for at most so long.

    Raises ``Unavailable`` (``upstream_unavailable``) with what the child last wrote to its standard error, and
    ``Misconfigured`` for a reference that is not set.
    """
    stderr = Stderr()
    manifest = UpstreamManifest(server=server, connection=connection)
    refused: dict[str, str] = {}
    try:
        with anyio.fail_after(seconds):
            async with open_client(manifest, sources, Hooks(refused=refused.__setitem__), stderr) as client:
                tools = await listed(client.session)
    except Misconfigured:
        raise
    except Exception as error:
        said = f" Its standard error ended with: {stderr.text()[-500:]}" if stderr.text() else ""
        raise Unavailable(
            f"The upstream {server} could not be asked: {describe(error).rstrip('.')}.{said}",
            code="upstream_unavailable",
            next_step="Check the command or URL and its credentials by hand, then try again.",
        ) from None
    offered = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
    return Discovered(offered, tuple(f"{name}: {why}" for name, why in refused.items()))


def propose(
    server: str, connection: StdioConnection | HttpConnection, offered: Iterable[Mapping[str, Any]]
) -> tuple[UpstreamManifest, tuple[str, ...]]:
    """A manifest for the upstream with every tool that can be governed, and for each other one why not and the mend."""
    tools: dict[str, ToolManifest] = {}
    left_out: list[str] = []
    for tool in offered:
        try:
            compile_schema(tool["inputSchema"], what="its input schema")
            manifest = propose_manifest(server, tool)
        except CharterError as error:
            left_out.append(f"{tool['name']}: {error.message} {error.next_step or ''}".rstrip())
        except Exception as error:
            left_out.append(f"{tool['name']}: {describe(error)}. Ask the server's maker to correct its definition.")
        else:
            if (first := tools.setdefault(manifest.name, manifest)) is not manifest:
                why = f"{first.upstream_name} has the name {manifest.name} already. Only the first can be governed."
                left_out.append(f"{tool['name']}: {why}")
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
