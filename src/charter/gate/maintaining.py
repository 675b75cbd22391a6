"""What administrators do to the store and the ledger's key. The events on record are never touched; doing it is one more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charter.gate.parts import CallContext
from charter.gate.relisting import relisting
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.workflows.draft import policy_event

if TYPE_CHECKING:
    from charter.gate.gate import Gate

MOST = 100


async def maintain(
    gate: Gate, principal: Principal, command: cmd.RebuildLists | cmd.RotateKey, ctx: CallContext
) -> int:
    """Carry it out and put it on record. How many lists rows differed, 0 for a key. Raises ``Denied`` (on record)."""
    tenant = principal.tenant
    facts = Facts(
        principal=principal, action="record.maintain", resource_type="Ledger", resource_id=tenant, tenant=tenant
    )
    decision = gate.prepare.evaluate(facts)
    if decision.verdict != "permit":
        await gate.refuse_outside(principal, facts, decision, ctx)
    done, found = (
        await _rebuilt(gate, principal, command)
        if isinstance(command, cmd.RebuildLists)
        else _rotated(principal, command)
    )
    events = [ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision)), done]
    await gate.record_outside(principal, events, ctx)
    return found


async def _rebuilt(gate: Gate, principal: Principal, command: cmd.RebuildLists) -> tuple[ev.Event, int]:
    """First the lists: a stream whose version was changed could not take the event. A crash in between leaves them right."""
    store, tenant = gate.parts.store, principal.tenant
    found = len(await store.differences(tenant, relisting(tenant), MOST))
    await store.rebuild(tenant, relisting(tenant))
    data = ev.ListsRebuilt(rebuilt_by=principal.id, reason=command.reason, differences=found)
    return ev.Event(type="LISTS_REBUILT", time="", data=data), found


def _rotated(principal: Principal, command: cmd.RotateKey) -> tuple[ev.Event, int]:
    data = ev.KeyRotated(
        old_key=command.old_key, new_key=command.new_key, rotated_by=principal.id, reason=command.reason
    )
    return ev.Event(type="KEY_ROTATED", time="", data=data), 0
