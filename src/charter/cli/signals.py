"""``charter signal``: facts from outside that waiting runs go on with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from charter.cli.editing import json_from
from charter.cli.output import Json, print_json, say
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.model.commands import SendSignal
from charter.model.principal import Principal
from charter.model.reply import SignalSent
from charter.model.signal import Signal

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="Signals: facts that waiting runs go on with.")


@commands.callback()
def group() -> None:
    """A group, however many commands it has."""


@commands.command("send")
def send(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="What happened, such as invoice.paid.")],
    signal_id: Annotated[str, typer.Option("--id", help="Names it at its source; the same again is a duplicate.")],
    source: Annotated[str, typer.Option("--source", help="Where it comes from.")] = "cli",
    data: Annotated[str | None, typer.Option("--data", help="JSON or @FILE.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="What it is about.")] = None,
    workflow_id: Annotated[str | None, typer.Option("--workflow", help="For this run alone.")] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Send a signal to the runs that wait for it."""
    value = json_from(data, "--data") if data is not None else None
    signal = Signal(id=signal_id, source=source, type=type_, subject=subject, data=value)

    async def work(charter: Charter, caller: Principal) -> SignalSent:
        answer: SignalSent = await charter.gate.handle(caller, SendSignal(signal=signal, workflow_id=workflow_id))
        return answer

    sent = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json(sent)
    elif sent.status == "duplicate":
        say(f"{signal_id} of {source} came in before; nothing was delivered again.")
    else:
        say(f"{signal_id} is on record. It woke {', '.join(sent.woken) or 'nothing'}.")
        for each in sent.started:
            say(f"It started {each}.")
        for template, why in sent.not_started.items():
            say(f"It started no {template}: {why}")
