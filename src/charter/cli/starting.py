"""``charter init``: a folder that works at once, with the bundled casebook as its first upstream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from charter.cli.output import Json, note, print_json, say
from charter.cli.session import login_name

if TYPE_CHECKING:
    from charter.manifests.tool_files import UpstreamManifest
    from charter.server.starter import Written

CASEBOOK = "casebook"
JUDGED: dict[str, dict[str, Any]] = {
    # The upstream's annotations say "destructive" of a write because it replaces text; a person judges by what a
    # casebook is for. Deleting and sending stay at what was proposed: high and irreversible.
    "write_note": {"risk": "medium", "side_effects": "reversible"},
    # The casebook honours Charter's idempotency key, so sending may be tried again after a crash.
    "send_notice": {"idempotent": True},
}
WELCOME = """\
# Welcome

This is a note of the casebook, the MCP server that comes with Charter. Agents read, search, write and delete notes
here, under Charter's policy. It is a folder of Markdown files, nothing else.
"""


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write. Made when it is not there.")] = Path(),
    person: Annotated[
        str | None, typer.Option("--person", help="Whom the local agent acts for. Default: your login name.")
    ] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant of this installation.")] = "default",
    bare: Annotated[bool, typer.Option("--bare", help="Without the bundled casebook.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented charter.toml, keys, policies and the bundled casebook. Nothing that is there is changed."""
    from charter.server.starter import write_starter

    extra = {} if bare else _casebook_files(folder)
    done = write_starter(folder, person=person or login_name(), tenant=tenant, extra=extra)
    if as_json:
        print_json({"folder": str(folder.resolve()), "files": [_line(item) for item in done]})
        return
    _tell(folder, done)


def _line(item: Written) -> dict[str, str]:
    return {"path": str(item.path), "action": item.action}


def _tell(folder: Path, done: list[Written]) -> None:
    for item in done:
        say(f"{item.action:<8} {item.path}")
    here = folder.resolve() == Path.cwd().resolve()
    config = "" if here else f" --config {folder / 'charter.toml'}"
    if not here:
        note(f"\nEither `cd {folder}` first or give --config.")
    say()
    say("Next:")
    say(f"  charter{config} serve                          serve MCP over HTTP (or: serve --stdio)")
    say(f"  charter{config} mcp-config --client claude     the entry for your client (vscode, cursor, codex, gemini)")
    say(f"  charter{config} upstream add NAME -- COMMAND   govern the tools of another MCP server")


def _casebook_files(folder: Path) -> dict[str, str]:
    """The casebook's manifests and a first note; nothing where its manifests are there already."""
    from charter.manifests.tool_files import SUFFIX, render
    from charter.server.starter import TOOLS

    name = f"{TOOLS}/{CASEBOOK}{SUFFIX}"
    if (folder / name).exists():
        return {}
    manifest = anyio.run(casebook_manifest, folder.absolute() / CASEBOOK)
    return {name: render(manifest), f"{CASEBOOK}/welcome.md": WELCOME}


async def casebook_manifest(notes: Path) -> UpstreamManifest:
    """The bundled upstream's manifests, from what the real server offers, corrected as a person would."""
    from charter.manifests.tool_files import StdioConnection
    from charter.tools.adding import discover, propose
    from charter.tools.connecting import Sources

    connection = StdioConnection(
        command=sys.executable, args=("-m", "charter.bundled.casebook", "--folder", str(notes))
    )
    offered = await discover(CASEBOOK, connection, Sources(environment={}))
    proposed, _ = propose(CASEBOOK, connection, offered.tools)
    tools = tuple(tool.model_copy(update=JUDGED.get(tool.upstream_name, {})) for tool in proposed.tools)
    return proposed.model_copy(update={"tools": tools})
