"""``charter upstream``: MCP servers whose tools Charter governs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from charter.cli.failing import REFUSED, UNAVAILABLE
from charter.cli.output import Json, note, page_json, print_json, print_table, say, stranger
from charter.cli.session import As, Roles, TokenFile, run, settings, who
from charter.cli.staging import Accepted, Pin, accept, manifests_folder
from charter.errors import InvalidInput

if TYPE_CHECKING:
    from charter.manifests.tool_files import HttpConnection, Reference, StdioConnection, UpstreamManifest
    from charter.server.app import Charter
    from charter.server.settings_model import Settings
    from charter.tools.connecting import Sources

commands = typer.Typer(no_args_is_help=True, help="The MCP servers whose tools Charter governs.")
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME[=env:VAR|=secret:NAME]", help="A variable for the child, by reference."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME=[PREFIX ]env:VAR|secret:NAME",
        help="A header with Charter's own credential, by reference.",
    ),
]


@commands.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What to call it; its tools become NAME__tool.")],
    command: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="The server to start.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The server's URL (streamable HTTP).")] = None,
    env: Environment = None,
    header: Headers = None,
    cwd: Annotated[Path | None, typer.Option("--cwd", help="The folder to start the command in.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write anew what is there.")] = False,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Connect to an MCP server, list its tools and write their manifests: risk proposed from annotations, pinned."""
    from charter.manifests.tool_files import SUFFIX
    from charter.tools.adding import discover, propose

    config = settings()
    _check_name(name)
    target = manifests_folder(config) / f"{name}{SUFFIX}"
    if target.exists() and not replace:
        raise InvalidInput(
            f"{target} is there already.",
            code="upstream_exists",
            next_step=f"See `charter tools diff {name}`; --replace writes it anew and forgets what was corrected in it.",
        )
    connection = _connection(list(command or ()), url, env, header, cwd)
    offered = anyio.run(discover, name, connection, sources(config))
    upstream, left_out = propose(name, connection, offered.tools)
    left_out = (*offered.refused, *left_out)
    pins = [Pin(tool.name, None, tool.definition_hash) for tool in upstream.tools]
    accepted = accept(config, who(as_name, role, token_file), upstream, pins)
    if as_json:
        print_json({"path": str(accepted.path), "tools": upstream.tools, "left_out": left_out})
        return
    _tell_added(upstream, left_out, accepted)


def _check_name(name: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from charter.manifests.tool_files import ServerName

    try:
        TypeAdapter(ServerName).validate_python(name)
    except ValidationError:
        raise InvalidInput(
            "An upstream's name is up to 64 letters, digits, dots, hyphens and single underscores, a letter or digit first.",
            code="bad_upstream_name",
            next_step="Choose another name; its tools become NAME__tool.",
        ) from None


def _tell_added(upstream: UpstreamManifest, left_out: tuple[str, ...], accepted: Accepted) -> None:
    rows = [(tool.name, tool.risk, tool.side_effects, tool.idempotent) for tool in upstream.tools]
    print_table(("tool", "proposed risk", "side effects", "idempotent"), rows, empty="The server offers no tools.")
    for reason in left_out:
        say(f"left out: {stranger(reason)}")
    say(f"\n{len(upstream.tools)} tools are governed now and pinned: {accepted.path}")
    if accepted.schema is not None:
        say(f"Their typed arguments are in the Cedar schema ({accepted.typed} in all): {accepted.schema}")
    say("Next: correct risk and side effects in that file; a running server reads it by itself.")


def sources(config: Settings) -> Sources:
    """Where the references of manifests are resolved: the environment and the encrypted secrets."""
    from charter.server.keys import load_keys
    from charter.server.secret_store import secret_file
    from charter.server.settings import process_environment
    from charter.tools.connecting import Sources

    secrets = secret_file(config, load_keys(config.keys_folder))
    return Sources(environment=process_environment(), secrets=secrets)


def _connection(
    command: list[str], url: str | None, env: list[str] | None, header: list[str] | None, cwd: Path | None
) -> StdioConnection | HttpConnection:
    from pydantic import ValidationError

    from charter.manifests.tool_files import HttpConnection, StdioConnection

    if bool(command) == (url is not None):
        raise typer.BadParameter("give either -- COMMAND… or --url URL")
    try:
        if url is not None:
            if env or cwd:
                raise typer.BadParameter("--env and --cwd go with a command")
            return HttpConnection(url=url, headers=_references(header))
        if header:
            raise typer.BadParameter("--header goes with --url")
        program = shutil.which(command[0]) or command[0]
        place = str(cwd.absolute()) if cwd else None
        return StdioConnection(command=program, args=tuple(command[1:]), env=_references(env), cwd=place)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise InvalidInput(first["msg"].removeprefix("Value error, "), code="bad_connection") from None


_REFERENCE = re.compile(r"(.*?)(env|secret):([A-Za-z0-9_.-]+)")


def _references(given: list[str] | None) -> dict[str, Reference]:
    """``NAME`` is the variable of that name; ``NAME=Bearer env:VAR`` and ``NAME=secret:NAME`` refer; else it is the value."""
    from charter.manifests.tool_files import Reference

    out = {}
    for item in given or ():
        name, equals, value = item.partition("=")
        match = _REFERENCE.fullmatch(value)
        if not equals:
            out[name] = Reference(env=name)
        elif match is None:
            out[name] = Reference(value=value)
        elif match[2] == "env":
            out[name] = Reference(env=match[3], prefix=match[1])
        else:
            out[name] = Reference(secret=match[3], prefix=match[1])
    return out


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """The upstreams that are configured; `upstream check` connects to them."""
    from charter.tools.folder import load_folder

    upstreams = load_folder(manifests_folder(settings()))
    if as_json:
        page_json(
            {"server": item.server, "connection": item.connection, "tools": [tool.name for tool in item.tools]}
            for item in upstreams
        )
        return
    rows = [(item.server, _reached(item), len(item.tools)) for item in upstreams]
    print_table(("id", "reached by", "tools"), rows, empty="No upstreams yet: charter upstream add NAME -- COMMAND…")


def _reached(upstream: UpstreamManifest) -> str:
    from charter.manifests.tool_files import StdioConnection

    connection = upstream.connection
    if isinstance(connection, StdioConnection):
        return shlex.join((connection.command, *connection.args))
    return connection.url


@commands.command("check")
def check(
    name: Annotated[str | None, typer.Argument(help="Only this upstream.")] = None, as_json: Json = False
) -> None:
    """Connect to the upstreams and say how each is; exit code 5 when one does not answer, 1 when a tool has changed."""

    async def look(charter: Charter) -> tuple[list[Any], list[str]]:
        assert charter.registry is not None  # it connects
        found = [status for status in charter.registry.upstreams() if name in (None, status.server)]
        entries = charter.registry.entries()
        changed = [
            entry.manifest.name for entry in entries if entry.quarantine and name in (None, entry.manifest.server)
        ]
        return found, changed

    statuses, changed = run(look, connect=True)
    if name is not None and not statuses:
        raise InvalidInput(f"There is no upstream {name!r}.", next_step="See `charter upstream list`.")
    if as_json:
        print_json({"items": statuses, "quarantined": changed})
    else:
        _tell_checked(statuses, changed)
    if any(status.state != "ready" for status in statuses):
        raise typer.Exit(UNAVAILABLE)
    if changed:
        raise typer.Exit(REFUSED)


def _tell_checked(statuses: list[Any], changed: list[str]) -> None:
    rows = [(s.server, s.state, s.era, s.offered, s.ungoverned, s.last_error) for s in statuses]
    print_table(("id", "state", "protocol", "tools", "not governed", "last error"), rows, empty="No upstreams yet.")
    for status in statuses:
        for reason in status.refused:
            note(f"{status.server} offers a tool that cannot be used: {stranger(reason)}")
        if status.state != "ready" and status.stderr:
            note(f"{status.server} wrote to its standard error: {stranger(status.stderr[-400:])}")
    for tool in changed:
        say(f"quarantined: {tool} differs from its pin; see `charter tools diff {tool}`")
