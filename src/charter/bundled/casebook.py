"""The casebook: an MCP server over a folder of real Markdown notes, for the demo, the tests and a first try.

    charter-casebook --folder DIR              over stdio
    charter-casebook --folder DIR --http PORT  over streamable HTTP on 127.0.0.1, at /mcp

``send_notice`` honours the idempotency key that Charter sends in ``_meta``: the same key twice sends once.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field

from charter.bundled.notes import NAME_PATTERN, NoteError, Notes

IDEMPOTENCY_KEY: Final = "io.charter/idempotency-key"
PROGRESS_EVERY: Final = 25

NoteName = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN, max_length=400, description="The note's name without .md, for example case-12/summary."
    ),
]
Text = Annotated[str, Field(max_length=200_000, description="Markdown text.")]
Line = Annotated[str, Field(min_length=1, max_length=200)]
Ctx = Context[Any, Any]


class NoteList(BaseModel):
    """The names of all notes."""

    notes: list[str]


class Note(BaseModel):
    """One note with its text."""

    name: str
    text: str


class Match(BaseModel):
    """One line that contains the query."""

    name: str
    line: int
    excerpt: str


class Matches(BaseModel):
    """What a search found; ``searched`` is how many notes were read."""

    matches: list[Match]
    searched: int
    more: bool = Field(description="Whether the limit cut the list.")


class Written(BaseModel):
    """What became of a note."""

    name: str
    created: bool = False
    characters: int


class Deleted(BaseModel):
    """The note that is gone."""

    name: str


class Preview(BaseModel):
    """What write_note would change."""

    name: str
    diff: str = Field(description="Unified diff; empty when nothing would change.")


class Sent(BaseModel):
    """The notice in the outbox; ``repeated`` when the same idempotency key had sent it before."""

    number: int
    repeated: bool


READ: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
OVERWRITE: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
ADD: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
DELETE: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)
SEND: Final = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True)


def build(folder: Path) -> MCPServer[Any]:
    """The server over this folder."""
    notes = Notes(folder)
    server: MCPServer[Any] = MCPServer(
        "casebook",
        version="1.0.0",
        instructions="Notes of cases in Markdown. Search before you write; preview_write_note shows what a write would change.",
        log_level="ERROR",
    )
    _add_reading(server, notes)
    _add_writing(server, notes)
    return server


def _add_reading(server: MCPServer[Any], notes: Notes) -> None:
    @server.tool(title="List notes", annotations=READ)
    def list_notes() -> NoteList:
        """List the names of all notes in the casebook."""
        return NoteList(notes=notes.names())

    @server.tool(title="Read a note", annotations=READ)
    def read_note(name: NoteName) -> Note:
        """Read one note's whole Markdown text."""
        return Note(name=name, text=_or_tool_error(notes.read, name))

    @server.tool(title="Search notes", annotations=READ)
    async def search_notes(
        query: Annotated[str, Field(min_length=1, max_length=200, description="Text to find, whatever the case.")],
        ctx: Ctx,
        limit: Annotated[int, Field(ge=1, le=500)] = 50,
    ) -> Matches:
        """Find lines that contain the query, in all notes. Reports progress while it reads many."""
        return await _search(notes, query, limit, ctx)

    @server.tool(title="Preview a write", annotations=READ)
    def preview_write_note(name: NoteName, text: Text) -> Preview:
        """Show as a unified diff what write_note with the same arguments would change. Changes nothing."""
        return Preview(name=name, diff=_or_tool_error(notes.diff, name, text))


def _add_writing(server: MCPServer[Any], notes: Notes) -> None:
    @server.tool(title="Write a note", annotations=OVERWRITE)
    def write_note(name: NoteName, text: Text) -> Written:
        """Create a note or replace its whole text. The same call twice leaves the same note."""
        return Written(name=name, created=_or_tool_error(notes.write, name, text), characters=len(text))

    @server.tool(title="Append to a note", annotations=ADD)
    def append_note(name: NoteName, text: Text) -> Written:
        """Add text at the end of a note that exists. Calling it twice adds it twice."""
        return Written(name=name, characters=len(_or_tool_error(notes.append, name, text)))

    @server.tool(title="Delete a note", annotations=DELETE)
    def delete_note(name: NoteName) -> Deleted:
        """Delete a note for good. There is no undo."""
        _or_tool_error(notes.delete, name)
        return Deleted(name=name)

    @server.tool(title="Send a notice", annotations=SEND)
    def send_notice(
        to: Annotated[Line, Field(description="Who gets it, for example billing@example.org.")],
        subject: Line,
        text: Text,
        ctx: Ctx,
    ) -> Sent:
        """Send a notice: it is put into the casebook's outbox and cannot be taken back."""
        meta: Any = ctx.request_context.meta or {}
        key = meta.get(IDEMPOTENCY_KEY)
        number, repeated = _or_tool_error(notes.send, to, subject, text, key if isinstance(key, str) else None)
        return Sent(number=number, repeated=repeated)


async def _search(notes: Notes, query: str, limit: int, ctx: Ctx) -> Matches:
    names = await anyio.to_thread.run_sync(notes.names)
    found: list[Match] = []
    for start in range(0, len(names), PROGRESS_EVERY):
        if len(names) > PROGRESS_EVERY:
            await ctx.report_progress(start, len(names), f"{start} of {len(names)} notes searched")
        part = names[start : start + PROGRESS_EVERY]
        found += await anyio.to_thread.run_sync(_search_part, notes, part, query)
        if len(found) > limit:
            return Matches(matches=found[:limit], searched=start + len(part), more=True)
    return Matches(matches=found, searched=len(names), more=False)


def _search_part(notes: Notes, names: list[str], query: str) -> list[Match]:
    found: list[Match] = []
    for name in names:
        try:
            found += [Match(name=name, line=number, excerpt=line) for number, line in notes.matches(name, query)]
        except (NoteError, OSError, UnicodeDecodeError):
            continue  # deleted meanwhile, or not text: it has no line to find
    return found


def _or_tool_error(work: Any, *args: Any) -> Any:
    """Failures that a caller can act on become an error result with that text; the rest stays hidden by the SDK."""
    try:
        return work(*args)
    except NoteError as error:
        raise ToolError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"The casebook's folder cannot be used for this: {type(error).__name__}.") from None


def main(argv: list[str] | None = None) -> None:
    """The command line; runs until its input ends or it is stopped."""
    parser = argparse.ArgumentParser(prog="charter-casebook", description="An MCP server over a folder of notes.")
    parser.add_argument("--folder", type=Path, default=Path("casebook"), help="where the notes are (default: casebook)")
    parser.add_argument("--http", type=int, metavar="PORT", help="serve streamable HTTP on 127.0.0.1 instead of stdio")
    options = parser.parse_args(argv)
    server = build(options.folder)
    if options.http is None:
        server.run("stdio")
    else:
        _serve_http(server, options.http)


def _serve_http(server: MCPServer[Any], port: int) -> None:
    import uvicorn

    # h11: httptools leaves white space in header values, which the protocol forbids; the time-out ends open streams.
    app = server.streamable_http_app()
    uvicorn.run(app, host="127.0.0.1", port=port, http="h11", log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
