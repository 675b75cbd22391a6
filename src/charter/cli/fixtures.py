"""``charter fixtures``: what tools answer in dry runs, recorded from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.failing import REFUSED
from charter.cli.output import Json, note, print_json, safe, say
from charter.cli.policies import governed
from charter.cli.session import As, Roles, TokenFile, run_as, settings, who
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="What tools answer in dry runs.")


@commands.callback()
def fixtures() -> None:
    """What tools answer in dry runs."""


@commands.command("record")
def record(
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW", help="A run that was not dry, wf_….")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Add them to this file; what it has stays. Default: print them."),
    ] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Make fixtures of what a run's own calls were answered, for `[tools] fixtures`; 1 when there are none.

    They are made of the record, so of what the tool manifests let on it: what is sensitive is replaced by made-up values,
    and of a result that is withheld entirely there is none. Each is checked against its tool's output schema.
    """
    from charter.manifests.recorded_fixtures import recorded
    from charter.server.fixture_file import add_fixtures, in_file

    async def read(charter: Charter, caller: Principal) -> list[dict[str, Any]]:
        return await charter.queries.events(caller, workflow_id)

    events = run_as(who(as_name, role, token_file), read)
    found = recorded(events, {tool.name: tool for tool in governed(settings())})
    added = add_fixtures(out, found.answers) if out is not None and found.answers else ()
    if as_json:
        print_json({"answers": found.answers, "left_out": found.left_out, "added": added if out is not None else None})
    elif out is None:
        typer.echo(safe(in_file(found.answers)) if found.answers else "", nl=False)
    else:
        for name in found.answers:
            say(f"{name}: {'added to' if name in added else 'kept as it is in'} {out}")
    for item in found.left_out:
        note(f"{safe(item.name)}: no fixture: {safe(item.why)}.")
    if not found.answers:
        note("Nothing was recorded: dry runs answer with made-up values, or with fixtures that you write.")
        raise typer.Exit(REFUSED)
