"""``charter schedules``: the times at which runs start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from charter.cli.output import Json, print_json, print_table
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.model.principal import Principal
from charter.model.reply import ScheduleView

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="Schedules: the times at which runs start.")


@commands.callback()
def group() -> None:
    """A group, however many commands it has."""


@commands.command("list")
def list_(as_name: As = None, role: Roles = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """List every schedule: when it comes next, and what it did last."""

    async def work(charter: Charter, caller: Principal) -> list[ScheduleView]:
        return await charter.gate.schedules.listed(caller)

    found = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json([item.model_dump(mode="json") for item in found])
        return
    rows = (
        (item.schedule, item.cron, item.time_zone, item.missed, item.next_at, item.last_run or item.not_started)
        for item in found
    )
    headers = ("schedule", "cron", "zone", "missed", "next", "last run")
    print_table(headers, rows, empty="No template has a schedule (`on_schedule`).")
