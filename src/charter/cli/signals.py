"""``charter signal``: facts from outside that start runs and wake them, and those that leave."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.editing import json_from
from charter.cli.output import Json, print_json, print_line, say
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.model.commands import ResendSignal, SendSignal
from charter.model.principal import Principal
from charter.model.reply import SignalSent
from charter.model.signal import Signal, cloud_event

if TYPE_CHECKING:
    from charter.gate.outgoing import Outgoing
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="Signals: facts that start runs and wake them, and those that leave.")


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


@commands.command("tail")
def tail(
    since: Annotated[
        int | None, typer.Option("--since", help="From this event of the log on. Default: the last 20.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only these; a * at the end matches the rest.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until you stop it.")] = False,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show the signals that leave: what happened to runs and approvals, and what `signal` steps said."""
    from charter.workflows.outgoing import wanted

    async def work(charter: Charter, caller: Principal) -> None:
        found, place = await charter.outlet.newest(caller) if since is None else ([], since)
        token = -1
        while True:
            for item in found:
                if wanted(item.signal.type, tuple(types or ())):
                    _show(item, as_json=as_json)
            sys.stdout.flush()
            before = place
            found, place = await charter.outlet.read(caller, place)
            if place == before:
                if not follow:
                    return
                token = await charter.outlet.more(token)

    with contextlib.suppress(KeyboardInterrupt):
        run_as(who(as_name, role, token_file), work)


def _show(item: Outgoing, *, as_json: bool) -> None:
    if as_json:
        print_line({"seq": item.seq, **cloud_event(item.signal)})
        return
    data = item.signal.data if isinstance(item.signal.data, dict) else {}
    named = (data.get(name) for name in ("step_id", "approval_id", "status", "code"))
    said = "  ".join(str(each) for each in named if each is not None)
    say(f"{item.seq:>6}  {item.signal.time}  {item.signal.type:<28}  {item.signal.subject or ''}  {said}".rstrip())


@commands.command("resend")
def resend(
    signal_id: Annotated[str, typer.Argument(metavar="SIGNAL", help="The signal, evt_…, as `undelivered` lists it.")],
    to: Annotated[
        str | None, typer.Option("--to", help="The subscriber, webhook:NAME. Default: all who gave it up.")
    ] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Have a signal sent again to a webhook that did not take it; the server does it in its turn."""

    async def work(charter: Charter, caller: Principal) -> tuple[str, ...]:
        answer: tuple[str, ...] = await charter.gate.handle(caller, ResendSignal(signal_id=signal_id, subscriber=to))
        return answer

    sent = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json({"signal_id": signal_id, "subscribers": sent})
    else:
        say(f"{signal_id} goes out again to {', '.join(sent)}.")


@commands.command("undelivered")
def undelivered(as_name: As = None, role: Roles = None, token_file: TokenFile = None, as_json: Json = False) -> None:
    """List the signals that a webhook did not take and is told of no more."""

    async def work(charter: Charter, caller: Principal) -> list[dict[str, Any]]:
        return await charter.outlet.undelivered(caller)

    found = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json(found)
        return
    if not found:
        say("Every signal was delivered, or is on its way.")
    for item in found:
        say(
            f"{item['time']}  {item['subscriber']}  {item['signal_type']}  {item['signal_id']} (event {item['seq']}): "
            f"{item['attempts']} attempts, {item['reason']}"
        )
