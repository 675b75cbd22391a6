"""``charter tools``: the governed tools, and what became of their definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from charter.cli.failing import REFUSED
from charter.cli.output import Json, note, page_json, print_fields, print_json, print_table, say, stranger
from charter.cli.session import As, Roles, TokenFile, settings, who
from charter.cli.staging import Pin, accept, manifests_folder, upstream_named
from charter.errors import NotFound
from charter.model.tool import ToolManifest

if TYPE_CHECKING:
    from charter.manifests.tool_files import UpstreamManifest
    from charter.server.settings_model import Settings

commands = typer.Typer(no_args_is_help=True, help="The governed tools and their pinned definitions.")


@dataclass(frozen=True, slots=True)
class Difference:
    """One tool whose upstream offers something else than its pin; ``offered_hash`` None: it offers it no more."""

    tool: str
    server: str
    pinned_hash: str | None
    offered_hash: str | None
    diff: str
    offered: Any = None

    def as_json(self) -> dict[str, Any]:
        """Without the definition itself; the diff shows it."""
        names = ("tool", "server", "pinned_hash", "offered_hash", "diff")
        return {name: getattr(self, name) for name in names}


def _upstreams(config: Settings) -> tuple[UpstreamManifest, ...]:
    from charter.tools.folder import load_folder

    return load_folder(manifests_folder(config))


@commands.command("list")
def list_(
    server: Annotated[str | None, typer.Argument(help="Only this upstream's.")] = None, as_json: Json = False
) -> None:
    """The governed tools, as the manifests say."""
    found = [tool for upstream in _upstreams(settings()) for tool in upstream.tools if server in (None, tool.server)]
    if as_json:
        page_json(found)
        return
    rows = [(t.name, t.risk, t.side_effects, t.idempotent, t.roles, t.tags, t.title) for t in found]
    print_table(
        ("id", "risk", "side effects", "idempotent", "roles", "tags", "title"),
        rows,
        empty="No governed tools yet: charter upstream add NAME -- COMMAND…",
    )


def tool_named(config: Settings, name: str) -> ToolManifest:
    """The manifest of this governed tool. Raises ``NotFound``."""
    for upstream in _upstreams(config):
        if (tool := upstream.tool(name)) is not None:
            return tool
    raise NotFound(f"There is no governed tool {name!r}.", next_step="See `charter tools list`.")


@commands.command("show")
def show(name: Annotated[str, typer.Argument(help="server__tool")], as_json: Json = False) -> None:
    """One tool's manifest."""
    import orjson

    tool = tool_named(settings(), name)
    if as_json:
        print_json(tool)
        return
    shown = [f"{line.pointer or '(all)'}: {line.how}" for line in tool.show]
    print_fields(
        [
            ("tool", tool.name),
            ("title", tool.title),
            ("risk", tool.risk),
            ("side effects", tool.side_effects),
            ("idempotent", tool.idempotent),
            ("roles", ", ".join(tool.roles) or "any"),
            ("tags", ", ".join(tool.tags)),
            ("sensitive arguments", ", ".join(tool.sensitive_arguments)),
            ("sensitive results", ", ".join(tool.sensitive_results)),
            ("shown to approvers", "\n".join(shown)),
            ("preview", tool.dry_run.tool if tool.dry_run else None),
            ("time-out", f"{tool.timeout_seconds} s"),
            ("pin", tool.definition_hash),
            ("description", stranger(tool.description)),
            ("arguments", orjson.dumps(tool.input_schema, option=orjson.OPT_INDENT_2).decode()),
        ]
    )


async def _differences(config: Settings, upstream: UpstreamManifest) -> tuple[list[Difference], list[Any]]:
    """What differs, what is gone, and what the upstream offers that no manifest governs."""
    from charter.cli.upstreams import sources
    from charter.manifests.definitions import definition_diff, definition_hash, pinned_definition
    from charter.tools.adding import discover

    discovered = await discover(upstream.server, upstream.connection, sources(config))
    for reason in discovered.refused:
        note(f"{upstream.server} offers a tool that cannot be used: {stranger(reason)}")
    offered = {tool["name"]: tool for tool in discovered.tools}
    found = []
    for tool in upstream.tools:
        now = offered.pop(tool.upstream_name, None)
        hash_ = definition_hash(now) if now is not None else None
        if hash_ != tool.definition_hash:
            diff = definition_diff(pinned_definition(tool), now)
            found.append(Difference(tool.name, tool.server, tool.definition_hash, hash_, diff, now))
    return found, list(offered.values())


def _wanted(config: Settings, name: str | None) -> list[tuple[UpstreamManifest, str | None]]:
    """The upstreams to look at, and the one tool of it where one is named."""
    if name is None:
        return [(upstream, None) for upstream in _upstreams(config)]
    if "__" in name:
        return [(upstream_named(config, tool_named(config, name).server), name)]
    return [(upstream_named(config, name), None)]


Target = Annotated[str | None, typer.Argument(metavar="[SERVER|TOOL]", help="An upstream, or one tool. Default: all.")]


@commands.command("diff")
def diff(name: Target = None, as_json: Json = False) -> None:
    """What the upstreams offer now against the pins; exit code 1 when something differs."""
    found: list[Difference] = []
    config = settings()
    for upstream, only in _wanted(config, name):
        differing, _ = anyio.run(_differences, config, upstream)
        found += [item for item in differing if only in (None, item.tool)]
    if as_json:
        page_json(item.as_json() for item in found)
    for item in found if not as_json else ():
        _show(item)
    if found:
        raise typer.Exit(REFUSED)
    if not as_json:
        note("Every tool is as it was pinned.")


def _show(item: Difference) -> None:
    say(f"{item.tool}: {'changed' if item.offered_hash else 'gone'}")
    say(item.diff + "\n")


@commands.command("pin")
def pin(
    name: Annotated[str, typer.Argument(metavar="SERVER|TOOL", help="An upstream, or one tool of it.")],
    new: Annotated[bool, typer.Option("--new", help="Govern tools as well that the upstream newly offers.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; the difference is printed all the same.")
    ] = False,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Accept what an upstream offers now: shows the difference, asks, records it and rewrites the manifest file."""
    config = settings()
    [(upstream, only)] = _wanted(config, name)
    differing, ungoverned = anyio.run(_differences, config, upstream)
    changed = [item for item in differing if only in (None, item.tool)]
    gone = [item for item in changed if item.offered is None]
    accepted = [item for item in changed if item.offered is not None and _agreed(item, yes)]
    for item in gone:
        say(f"{item.tool}: the upstream offers it no more; remove it from the file if that is meant.")
    updated, pins = _repinned(upstream, accepted)
    if new:
        updated, more = _extended(updated, ungoverned, yes)
        pins += more
    if not pins:
        note("Nothing was pinned." if changed or ungoverned else "Every tool is as it was pinned.")
        raise typer.Exit(REFUSED if changed else 0)
    written = accept(config, who(as_name, role, token_file), updated, pins)
    say(f"Pinned {', '.join(item.tool for item in pins)}: {written.path}")


def _agreed(item: Difference, yes: bool) -> bool:
    _show(item)
    return yes or typer.confirm(f"Accept this definition of {item.tool}?", err=True)


def _repinned(upstream: UpstreamManifest, accepted: list[Difference]) -> tuple[UpstreamManifest, list[Pin]]:
    from charter.tools.adding import repin

    by_name = {item.tool: item for item in accepted}
    tools = tuple(repin(tool, by_name[tool.name].offered) if tool.name in by_name else tool for tool in upstream.tools)
    pins = [Pin(item.tool, item.pinned_hash, item.offered_hash or "") for item in accepted]
    return upstream.model_copy(update={"tools": tools}), pins


def _extended(upstream: UpstreamManifest, offered: list[Any], yes: bool) -> tuple[UpstreamManifest, list[Pin]]:
    from charter.tools.adding import propose

    proposed, left_out = propose(upstream.server, upstream.connection, offered)
    for reason in left_out:
        say(f"left out: {stranger(reason)}")
    taken = []
    for tool in proposed.tools:
        say(f"{tool.name}: new, proposed risk {tool.risk}, side effects {tool.side_effects}")
        say(f"  {stranger(tool.description)}")
        if yes or typer.confirm(f"Govern {tool.name}?", err=True):
            taken.append(tool)
    tools = (*upstream.tools, *taken)
    return upstream.model_copy(update={"tools": tools}), [Pin(t.name, None, t.definition_hash) for t in taken]
