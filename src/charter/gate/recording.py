"""From a draft to a batch: events, the rows that lists are made of, claims and sealed content, all in one commit."""

from __future__ import annotations

from typing import Any

import orjson

from charter.model import events as ev
from charter.model.base import Model
from charter.model.ids import Mint
from charter.model.principal import Principal
from charter.store.port import ApprovalRow, Batch, Claim, EffectRow, NewEvent, Sealed, WaitRow, WorkflowRow
from charter.store.sealing import Sealer
from charter.workflows.decide import wake_at
from charter.workflows.draft import Draft
from charter.workflows.signals import waiting
from charter.workflows.state import State
from charter.workflows.views import listed_as, status_of

_ROW_EVENTS = frozenset({"TOOL_INVOKE", "TOOL_RESULT", "EFFECT_IN_DOUBT", "EFFECT_DEAD_LETTERED", "EFFECT_RESOLVED"})


def new_event(
    event: ev.Event, *, mint: Mint, actor: dict[str, str], command_id: str, correlation_id: str, trace_id: str | None
) -> NewEvent:
    """One event as the store takes it."""
    data = event.data.model_dump(mode="json", exclude_defaults=True) if isinstance(event.data, Model) else event.data
    return NewEvent(
        id=mint.new("event"),
        type=event.type,
        time=event.time,
        actor=actor,
        data=data,
        causation_id=command_id,
        correlation_id=correlation_id,
        trace_id=trace_id,
    )


def batch_of(draft: Draft, before: State, principal: Principal, sealer: Sealer, trace_id: str | None) -> Batch:
    """Everything that one command changes, and those that follow it in the same commit, as if each had its own."""
    batch = _batch_of(draft, before, principal, sealer, trace_id)
    before = draft.state
    for each in draft.then:
        one = _batch_of(each, before, each.given.principal, sealer, trace_id)
        batch, before = _together(batch, one), each.state
    return batch


def _together(one: Batch, other: Batch) -> Batch:
    """Of several list rows with one key the last counts, here as in the store."""
    return Batch(
        tenant=one.tenant,
        stream=one.stream,
        expected_version=one.expected_version,
        events=one.events + other.events,
        workflow=other.workflow or one.workflow,
        approvals=one.approvals + other.approvals,
        effects=one.effects + other.effects,
        waits=one.waits + other.waits,
        claims=one.claims + other.claims,
        sealed=one.sealed + other.sealed,
    )


def _batch_of(draft: Draft, before: State, principal: Principal, sealer: Sealer, trace_id: str | None) -> Batch:
    state, mint = draft.state, draft.given.mint
    command_id = draft.command_id or mint.new("command")
    actor = principal.actor()
    events = tuple(
        new_event(
            event,
            mint=mint,
            actor=actor,
            command_id=command_id,
            correlation_id=state.workflow_id,
            trace_id=trace_id,
        )
        for event in draft.events
    )
    return Batch(
        tenant=state.tenant,
        stream=state.workflow_id,
        expected_version=before.version,
        events=events,
        **listed(before, state, draft.events, draft.given.instance),
        claims=tuple(Claim(scope=scope, key=key, value=value) for scope, key, value in draft.claims),
        sealed=tuple(seal(sealer, state.tenant, item.ref, item.content) for item in draft.secrets),
    )


def listed(before: State, after: State, events: list[ev.Event], instance: str) -> dict[str, Any]:
    """The rows of lists that change with these events. A pure function of the log: ``gate.relisting`` makes them anew."""
    return {
        "workflow": _workflow_row(after) if _listed_differently(before, after, events) else None,
        "approvals": _approval_rows(before, after),
        "effects": _effect_rows(after, events, instance),
        "waits": _wait_rows(before, after),
    }


def seal(sealer: Sealer, tenant: str, ref: str, content: Any) -> Sealed:
    """JSON content, encrypted for this tenant and place."""
    return sealer.seal(tenant, ref, orjson.dumps(content))


_LISTED_EVENTS = frozenset({"EFFECT_IN_DOUBT", "EFFECT_RESOLVED", "AGENT_INVOKE"})


def _listed_differently(before: State, after: State, events: list[ev.Event]) -> bool:
    """A call that begins and ends changes no list: the hot path writes no row for it but the effect's. Cheap looks first."""
    if before.version == 0 or before.steps is not after.steps or before.approvals is not after.approvals:
        return True
    if before.invocations.keys() != after.invocations.keys() or any(event.type in _LISTED_EVENTS for event in events):
        return True
    return wake_at(before) != wake_at(after) or status_of(before) != status_of(after)


def _workflow_row(state: State) -> WorkflowRow:
    status, blocked_on = listed_as(state)
    return WorkflowRow(
        workflow_id=state.workflow_id,
        template=state.template,
        status=status,
        owner=state.owner,
        purpose=state.purpose,
        case_id=state.case_id,
        blocked_on=blocked_on,
        started_at=state.started_at,
        updated_at=state.updated_at,
        wake_at=wake_at(state),
    )


def _approval_rows(before: State, after: State) -> tuple[ApprovalRow, ...]:
    if before.approvals is after.approvals:
        return ()
    changed = [item for key, item in after.approvals.items() if before.approvals.get(key) is not item]
    return tuple(
        ApprovalRow(
            approval_id=item.request.approval_id,
            workflow_id=item.request.workflow_id,
            status=item.status,
            tool=item.request.tool,
            risk=item.request.risk,
            requested_by=item.request.requested_by,
            owner=item.request.owner,
            requested_at=item.request.requested_at,
            expires_at=item.expires_at,
            request=item.request.model_dump_json(),
        )
        for item in changed
    )


def _wait_rows(before: State, after: State) -> tuple[WaitRow, ...]:
    if before.steps is after.steps and before.status == after.status:
        return ()
    was, is_now = waiting(before), waiting(after)
    rows = [WaitRow(after.workflow_id, key, type_, "over") for key, type_ in was.items() if is_now.get(key) != type_]
    rows += [WaitRow(after.workflow_id, key, type_, "open") for key, type_ in is_now.items() if was.get(key) != type_]
    return tuple(rows)


def _effect_rows(state: State, events: list[ev.Event], instance: str) -> tuple[EffectRow, ...]:
    rows: dict[str, EffectRow] = {}
    for event in events:
        if event.type not in _ROW_EVENTS:
            continue
        effect_id = event.data.effect_id
        current = state.effects.get(effect_id)
        rows[effect_id] = EffectRow(
            effect_id=effect_id,
            workflow_id=state.workflow_id,
            status=current.status if current else "ended",
            tool=current.invoke.tool if current else "",
            instance=current.invoke.instance if current else instance,
            updated_at=event.time,
        )
    return tuple(rows.values())
