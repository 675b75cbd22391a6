"""Signals: let in by the policy, delivered to the runs that wait for them, recorded, and only then acknowledged.

Each run takes a signal in one commit of its own and once (a claim); the tenant's stream gets its SIGNAL_RECEIVED last, with
the claim that makes the same signal a duplicate. A process that dies in between has acknowledged nothing: the sender sends
again, and the runs that are not yet woken are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from charter.errors import CharterError, InvalidInput, Refused, Unavailable
from charter.gate.outcomes import only_charter
from charter.gate.parts import CallContext
from charter.gate.resending import undelivered_stream
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model import signal_events as sev
from charter.model.canonical import canonical, sha256_hex
from charter.model.ids import Mint
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.model.reply import SignalSent
from charter.model.signal import DATA_BYTES, DATA_DEPTH, Signal
from charter.model.template import Template
from charter.store.port import AlreadyClaimed, Claim
from charter.workflows import decide as rules
from charter.workflows import expressions
from charter.workflows import facts as facts_of
from charter.workflows.draft import Draft, policy_event
from charter.workflows.signals import run_key, tenant_key, waiting
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate

BATCH = 500
MAX_DEPTH = 5
"""So many starts by signals may follow from each other: runs that start each other end."""
SCOPE = "signal"


class Signals:
    """Takes signals in for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def send(self, principal: Principal, command: cmd.SendSignal, ctx: CallContext) -> SignalSent:
        """Deliver a signal. Raises ``Denied`` (on record), ``InvalidInput`` (``signal_too_large``)."""
        _check_size(command)
        if not _own(principal):
            command = command.model_copy(update={"signal": command.signal.model_copy(update={"depth": 0})})
        facts = await self._facts(principal, command)
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._gate.refuse_outside(principal, facts, decision, ctx)
        key = tenant_key(command.workflow_id, command.signal)
        if await self._gate.parts.store.claimed(principal.tenant, SCOPE, key) is not None:
            return SignalSent(status="duplicate")
        now, mint = self._gate.moment()
        command_id = mint.new("command")
        woken = tuple([each async for each in self._woken(principal, command, command_id, ctx)])
        started, refused = await self._started(principal, command, command_id, ctx)
        done: dict[str, Any] = {"woken": woken, "started": started, "not_started": refused}
        received = ev.SignalReceived(
            signal=command.signal, sent_by=principal.id, workflow_id=command.workflow_id, **done
        )
        events = [
            ev.Event(type="POLICY_DECISION", time=now, data=policy_event(facts, decision)),
            ev.Event(type="SIGNAL_RECEIVED", time=now, data=received),
        ]
        try:
            claims = (Claim(SCOPE, key, principal.id),)
            await self._gate.record_outside(principal, events, ctx, claims=claims, command_id=command_id)
        except AlreadyClaimed:  # the same signal came in twice at once; each run took it from one of them
            return SignalSent(status="duplicate", **done)
        return SignalSent(status="received", **done)

    async def undelivered(self, principal: Principal, command: cmd.RecordUndelivered, ctx: CallContext) -> None:
        """On record once, so that a delivery that was given up is seen."""
        only_charter(principal)
        data = sev.SignalUndelivered(**command.model_dump(exclude={"kind"}))
        event = ev.Event(type="SIGNAL_UNDELIVERED", time="", data=data)
        claims = (Claim("undelivered", f"{command.subscriber}|{command.seq}", command.signal_id),)
        stream = undelivered_stream(principal.tenant)
        with contextlib.suppress(AlreadyClaimed):
            await self._gate.record_outside(principal, [event], ctx, stream=stream, claims=claims)

    async def _started(
        self, principal: Principal, command: cmd.SendSignal, command_id: str, ctx: CallContext
    ) -> tuple[tuple[str, ...], dict[str, str]]:
        """The runs that it starts, each decided by the policy as any start is; what one template refuses hinders no other."""
        started: list[str] = []
        refused: dict[str, str] = {}
        if command.workflow_id is not None:
            return (), refused
        for template in self._gate.parts.templates.for_signal(command.signal.type):
            try:
                workflow_id = await self._start(principal, template, command.signal, command_id, ctx)
            except Unavailable:
                raise  # nothing was acknowledged: the sender sends again, and what has started is not started twice
            except CharterError as error:
                refused[template.ref] = f"{error.error_code}: {error.message}"
                continue
            started += [workflow_id] if workflow_id is not None else []
        return tuple(started), refused

    async def _start(
        self, principal: Principal, template: Template, signal: Signal, command_id: str, ctx: CallContext
    ) -> str | None:
        scope = {"signal": signal.shown()}
        wanted = [start.where for start in template.on_signal if start.type == signal.type]
        if not any(where is None or expressions.condition(where, scope) for where in wanted):
            return None
        if not isinstance(signal.data, dict):
            raise InvalidInput("The data of a signal that starts a run is an object.", code="signal_data")
        key = sha256_hex(canonical([template.name, signal.source, signal.id]))
        known = await self._gate.parts.store.claimed(principal.tenant, "signal_start", key)
        if known is not None:
            return known
        cause = _cause(template, signal)
        start = cmd.StartWorkflow(
            template=template.ref, input=signal.data, purpose=f"Signal {signal.type}", idempotency_key=f"signal:{key}"
        )
        claims = (("signal_start", key),)
        context = await self._gate.starts.start(
            principal, start, ctx, claims=claims, command_id=command_id, caused_by=cause
        )
        return str(context.workflow_id)

    async def _facts(self, principal: Principal, command: cmd.SendSignal) -> Facts:
        if command.workflow_id is not None:
            state = await self._gate.states.fresh(principal.tenant, command.workflow_id)
            state = state or State(workflow_id=command.workflow_id, tenant=principal.tenant)
            facts = facts_of.workflow_facts(state, principal, "signal.send")
        else:
            facts = facts_of.ledger_facts(principal, "signal.send")
        return facts.model_copy(update={"signal_type": command.signal.type, "signal_source": command.signal.source})

    async def _woken(
        self, principal: Principal, command: cmd.SendSignal, command_id: str, ctx: CallContext
    ) -> AsyncIterator[str]:
        after = ""
        while found := await self._page(principal.tenant, command, after):
            for workflow_id in found:
                if await self._deliver(principal, workflow_id, command, command_id, ctx):
                    yield workflow_id
            if command.workflow_id is not None:
                return
            after = found[-1]

    async def _page(self, tenant: str, command: cmd.SendSignal, after: str) -> list[str]:
        if command.workflow_id is not None:
            return [command.workflow_id]
        return await self._gate.parts.store.waiting_for(tenant, command.signal.type, after, BATCH)

    async def _deliver(
        self, principal: Principal, workflow_id: str, command: cmd.SendSignal, command_id: str, ctx: CallContext
    ) -> bool:
        signal = command.signal
        alone = command.workflow_id is not None
        delivery = cmd.DeliverSignal(workflow_id=workflow_id, signal=signal, alone=alone)
        key = run_key(workflow_id, signal, alone)

        async def make(state: State, now: str, mint: Mint) -> Draft:
            given = await self._gate.given(state, principal, now, mint)
            taken = await self._gate.parts.store.claimed(state.tenant, "signal_run", key)
            if taken is not None or signal.type not in waiting(state).values():
                return Draft(state=state, given=given)
            draft = rules.decide(state, delivery, given)
            draft.command_id = command_id
            return draft

        draft = await self._gate.transact(principal, workflow_id, make, ctx)
        return any(event.type == "SIGNAL_DELIVERED" for event in draft.events)


def _own(principal: Principal) -> bool:
    return principal.kind == "service" and "charter" in principal.roles and principal.id.startswith("charter:")


def _cause(template: Template, signal: Signal) -> sev.Cause:
    """What a run that it starts will say of it. Raises ``Refused`` (``signal_depth``) after too many starts by starts."""
    if signal.depth >= MAX_DEPTH:
        raise Refused(
            f"{signal.depth} starts by signals lie behind it, so it starts no {template.name} any more.",
            code="signal_depth",
            next_step="Take the circle out of the templates' on_signal; narrow it by `where`.",
        )
    return sev.Cause(
        signal_type=signal.type,
        signal_source=signal.source,
        signal_id=signal.id,
        correlation_id=signal.correlation_id,
        depth=signal.depth + 1,
    )


def _check_size(command: cmd.SendSignal) -> None:
    if len(canonical(command.signal.data, max_depth=DATA_DEPTH)) > DATA_BYTES:
        raise InvalidInput(
            f"The signal's data is larger than {DATA_BYTES // 1024} KiB.",
            code="signal_too_large",
            next_step="Send a reference to it.",
        )
