"""``charter init``: a folder that works at once, with the bundled casebook as its first upstream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from charter.cli.output import Json, note, print_json, say
from charter.cli.session import Who, login_name, run_as
from charter.errors import CharterError
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.manifests.tool_files import UpstreamManifest
    from charter.server.app import Charter
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

    manifest = None if bare else _new_casebook(folder)
    extra = {} if manifest is None else _casebook_files(manifest)
    done = write_starter(folder, person=person or login_name(), tenant=tenant, extra=extra)
    if manifest is not None:
        _put_on_record(folder, manifest)
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


def _new_casebook(folder: Path) -> UpstreamManifest | None:
    """The casebook's manifests; None where they are there already."""
    if (folder / _file_name()).exists():
        return None
    return anyio.run(casebook_manifest, folder.absolute() / CASEBOOK)


def _file_name() -> str:
    from charter.manifests.tool_files import SUFFIX
    from charter.server.starter import TOOLS

    return f"{TOOLS}/{CASEBOOK}{SUFFIX}"


def _casebook_files(manifest: UpstreamManifest) -> dict[str, str]:
    """Its manifests and a first note."""
    from charter.manifests.tool_files import render

    return {_file_name(): render(manifest), f"{CASEBOOK}/welcome.md": WELCOME}


def _put_on_record(folder: Path, manifest: UpstreamManifest) -> None:
    """Who accepted the casebook's definitions, as for every other upstream. Where the gate says no, pinning is left to do."""
    from charter.model.commands import PinTool
    from charter.server.settings import load_settings

    async def record(charter: Charter, caller: Principal) -> None:
        for tool in manifest.tools:
            pin = PinTool(tool=tool.name, old_hash=None, new_hash=tool.definition_hash)
            await charter.gate.handle(caller, pin)

    try:
        run_as(Who(login_name()), record, using=load_settings(folder.absolute() / "charter.toml"))
    except CharterError as error:
        note(f"The casebook's definitions are not on record: {error.message} Run `charter tools pin` for them later.")


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
