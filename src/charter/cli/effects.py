"""``charter effects``: calls of which nobody knows whether they ran, until a person finds out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from charter.cli.editing import json_from
from charter.cli.output import Json, note, page_json, print_json, print_table, say
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.errors import NotFound
from charter.model.commands import ResolveEffect
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="Calls that run, and those in doubt.")
Resolution = Literal["ran", "did_not_run", "retry"]


@commands.command("list")
def list_(
    status: Annotated[str, typer.Option("--status", help="in_doubt, dead_lettered, running or all.")] = "in_doubt",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option("--after", help="The cursor of the next page.")] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Effects in doubt, newest first; of messages that were given up it says how many there are."""
    from charter.store.port import Filter, Page

    where = Filter(status=None if status == "all" else status)

    async def read(charter: Charter, caller: Principal) -> Any:
        found = await charter.queries.effects(caller, where, Page(limit=limit, after=after))
        dead, _ = await charter.queries.effects(caller, Filter(status="dead_lettered"), Page(limit=1))
        return *found, bool(dead)

    rows, cursor, dead = run_as(who(as_name, role, token_file), read)
    if as_json:
        page_json(rows, cursor)
        return
    table = [(r.effect_id, r.status, r.tool, r.workflow_id, r.updated_at) for r in rows]
    print_table(("id", "status", "tool", "id of workflow", "since"), table, empty="Nothing is in doubt.")
    if cursor:
        note(f"More: --after {cursor}")
    if dead and status == "in_doubt":
        note("There are messages that were given up: charter effects list --status dead_lettered")


@commands.command("resolve")
def resolve(
    effect_id: Annotated[str, typer.Argument(metavar="EFFECT", help="The effect, eff_….")],
    resolution: Annotated[
        Resolution, typer.Argument(help="What you found out: it ran, it did not run; or run it again.")
    ],
    comment: Annotated[str, typer.Option("--comment", "-m", help="How you know; goes on record.")] = "",
    output: Annotated[str | None, typer.Option("--output", help="With ran: what it answered, JSON or @FILE.")] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Say what became of an effect in doubt. `retry` runs the tool again, from here, under the same idempotency key."""
    value = json_from(output, "--output") if output is not None else None

    async def work(charter: Charter, caller: Principal) -> Any:
        # Settled ones are not listed; the gate's own answer says so better than an empty list would.
        row = await charter.store.effect(caller.tenant, effect_id)
        if row is None:
            raise NotFound(f"There is no effect {effect_id} in doubt.", next_step="See `charter effects list`.")
        command = ResolveEffect(
            workflow_id=row.workflow_id, effect_id=effect_id, resolution=resolution, comment=comment, output=value
        )
        return await charter.gate.handle(caller, command)

    answer = run_as(who(as_name, role, token_file), work, connect=resolution == "retry")
    if as_json:
        print_json({"effect_id": effect_id, "resolution": resolution, "outcome": answer})
        return
    status = getattr(answer, "status", None)
    say(f"{effect_id}: {resolution.replace('_', ' ')} is on record." + (f" It {status}." if status else ""))
