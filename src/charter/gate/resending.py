"""Signals that a subscriber did not take: which they are, and sending one again because an operator says so.

That it is to be sent again is an event of the log, and so in the outbox: it leaves when its turn comes, at least once, and is
given up, on record, as the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from charter.errors import NotFound
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model import signal_events as sev
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.store.port import Store
from charter.workflows.draft import policy_event
from charter.workflows.facts import ledger_facts

if TYPE_CHECKING:
    from charter.gate.gate import Gate

UNDELIVERED, RESENT = "SIGNAL_UNDELIVERED", "SIGNAL_RESENT"


def undelivered_stream(tenant: str) -> str:
    """Where the deliveries that were given up are on record, and what was sent again."""
    return f"undelivered:{tenant}"


async def given_up(store: Store, tenant: str) -> list[JsonObject]:
    """The deliveries that were given up and not sent again since, in order. ``of`` is the signal's own place in the log."""
    found: dict[tuple[str, str], JsonObject] = {}
    first: dict[tuple[str, str], int] = {}
    for row in await store.load(tenant, undelivered_stream(tenant)):
        if row.type not in (UNDELIVERED, RESENT):
            continue
        data: JsonObject = orjson.loads(row.leaf)["data"]
        key = (data["subscriber"], data["signal_id"])
        found.pop(key, None)
        if row.type == UNDELIVERED:
            found[key] = {"time": row.time, **data, "of": first.setdefault(key, data["seq"])}
    return list(found.values())


async def resend(gate: Gate, principal: Principal, command: cmd.ResendSignal, ctx: CallContext) -> tuple[str, ...]:
    """Put it on record that a signal is to be sent again; to whom.

    Raises ``Denied`` (on record), ``NotFound`` (``not_undelivered``) when nobody gave it up, or it is on its way again.
    """
    facts = ledger_facts(principal, "signal.send")
    decision = gate.prepare.evaluate(facts)
    if decision.verdict != "permit":
        await gate.refuse_outside(principal, facts, decision, ctx)
    listed = await given_up(gate.parts.store, principal.tenant)
    again = [
        item
        for item in listed
        if item["signal_id"] == command.signal_id and command.subscriber in (None, item["subscriber"])
    ]
    if not again:
        raise NotFound(
            f"No subscriber gave {command.signal_id!r} up, or it is on its way again.",
            code="not_undelivered",
            next_step="`charter signal undelivered` lists what was given up.",
        )
    sent = [
        sev.SignalResent(
            subscriber=item["subscriber"],
            signal_id=item["signal_id"],
            signal_type=item["signal_type"],
            seq=item["of"],
            by=principal.id,
        )
        for item in again
    ]
    events = [ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision))]
    events += [ev.Event(type=RESENT, time="", data=data) for data in sent]
    await gate.record_outside(principal, events, ctx, stream=undelivered_stream(principal.tenant))
    return tuple(item.subscriber for item in sent)
