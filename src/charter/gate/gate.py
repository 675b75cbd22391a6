"""The choke point: every governed thing passes ``Gate.handle`` or ``Gate.read`` and nowhere else.

One command: load the state, ask the policy, decide, append in one durable commit, then run the effect that was asked for and
put its outcome on record the same way. A run that moved meanwhile means deciding again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from charter.errors import CharterError, Conflict, InvalidInput, NotFound, Unavailable
from charter.gate import callbacks, outcomes, publishing
from charter.gate.agents import AgentCommands
from charter.gate.batches import Batches
from charter.gate.children import Children
from charter.gate.driving import Driving
from charter.gate.grants import CaseGrants
from charter.gate.loading import States
from charter.gate.maintaining import maintain
from charter.gate.parts import NO_CONTEXT, TRIES, CallContext, Parts
from charter.gate.people import RunCommands
from charter.gate.preparing import Preparer
from charter.gate.recording import batch_of, new_event
from charter.gate.resending import resend
from charter.gate.schedules import Schedules
from charter.gate.signals import Signals
from charter.gate.spans import STORE_APPEND, STORE_LOAD, Attr
from charter.gate.starting import Starts
from charter.gate.templates import KnownTemplates
from charter.gate.under_way import UnderWay
from charter.gate.uninterrupted import uninterrupted
from charter.gate.withholding import Withholding
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.ids import Mint
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.model.times import rfc3339
from charter.store.port import AlreadyClaimed, Batch, Claim, VersionConflict
from charter.workflows.calls import denied
from charter.workflows.draft import Draft, Given, policy_event
from charter.workflows.state import State

Watcher = Callable[[str, str, Sequence[str]], None]
"""Told after each commit: tenant, stream, event types. Without types: look at it again."""

CLOSING_SECONDS = 5.0
"""How long commands whose callers are gone may take to put on record that they were cut off."""

Make = Callable[[State, str, Mint], Awaitable[Draft]]
Then = Callable[[Draft], Awaitable[list[Draft]]]
"""The commands that follow a draft in its own commit."""


class Gate:
    """See the module's text. One per process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.states = States(
            parts.store,
            parts.sealer,
            capacity=parts.limits.cached_workflows,
            snapshot_every=parts.limits.snapshot_every,
        )
        self.prepare = Preparer(parts)
        self.withholding = Withholding(parts, self.prepare)
        self.templates = KnownTemplates(parts.store, parts.templates)
        self.watchers: list[Watcher] = []
        self.under_way = UnderWay()
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.effects = outcomes.Effects(self)
        self.case_grants = CaseGrants(self)
        self._signals, self.schedules = Signals(self), Schedules(self)
        self.children, self.driving = Children(self), Driving(self)
        self.starts, self.agents, self._runs = Starts(self), AgentCommands(self), RunCommands(self)
        self._outside: dict[type[Any], Callable[[Principal, Any, CallContext], Awaitable[Any]]] = {
            cmd.StartWorkflow: self.starts.start,
            cmd.InvokeBatch: Batches(self).run,
            cmd.SendSignal: self._signals.send,
            cmd.RecordUndelivered: self._signals.undelivered,
            cmd.ResendSignal: partial(resend, self),
            cmd.KeepSchedule: self.schedules.keep,
            cmd.PinTool: self._runs.pin,
            cmd.PublishTemplate: partial(publishing.publish, self),
            cmd.EraseSealed: self._runs.erase,
            cmd.DeliverCallback: partial(callbacks.deliver, self),
            cmd.RebuildLists: partial(maintain, self),
            cmd.RotateKey: partial(maintain, self),
        }

    # -- the road in

    async def handle(self, principal: Principal, command: cmd.Command, ctx: CallContext = NO_CONTEXT) -> Any:
        """Carry out a command and answer with its reply (see ``model.reply``).

        Raises the errors of ``charter.errors``: ``Denied`` and ``Refused`` are on record, the others changed nothing.
        """
        self.under_way.demand_open()
        with self.seen(principal, command):
            return await self._handle(principal, command, ctx)

    @contextmanager
    def seen(self, principal: Principal, command: cmd.Command) -> Iterator[None]:
        """Around a command that is carried out: it is under way, on a span, and in the metrics."""
        tracing, began = self.parts.tracing, time.perf_counter()
        failure: str | None = "interrupted"
        workflow_id = getattr(command, "workflow_id", None)
        attributes = {
            Attr.COMMAND: command.kind,
            Attr.TENANT: principal.tenant,
            Attr.PRINCIPAL_KIND: principal.kind,
            Attr.WORKFLOW: workflow_id,
            Attr.INVOCATION: getattr(command, "agent_invocation_id", None),
            Attr.GOVERNED_TOOL: getattr(command, "tool", None),
            Attr.PROPOSAL: getattr(command, "proposal_id", None),
        }
        tracing.annotate(attributes, workflow_id)
        with self.under_way, tracing.command_span(command.kind, attributes, workflow_id):
            try:
                yield
                failure = None
            except CharterError as error:
                failure = error.error_code
                raise
            finally:
                seconds = time.perf_counter() - began
                tracing.call_took(seconds, command=command.kind, error=failure)

    async def _handle(self, principal: Principal, command: cmd.Command, ctx: CallContext) -> Any:
        outside = self._outside.get(type(command))
        if outside is not None:
            return await outside(principal, command, ctx)
        if isinstance(command, cmd.ProposeAction | cmd.RequestApproval | cmd.InvokeTool | cmd.CompleteStep):
            return await self.agents.handle(principal, command, ctx)
        if isinstance(command, cmd.DecideApproval | cmd.DelegateApproval):
            row = await self.parts.store.approval(principal.tenant, command.approval_id)
            if row is None:
                raise NotFound(f"There is no approval {command.approval_id}.", next_step="List what is pending.")
            self.parts.tracing.annotate({Attr.APPROVAL: row.approval_id}, row.workflow_id)
            if isinstance(command, cmd.DelegateApproval):
                return await self._runs.delegate(principal, command, row.workflow_id, ctx)
            return await self._runs.decide(principal, command, row.workflow_id, ctx)
        return await self._runs.handle(principal, command, ctx)

    # -- one transaction

    async def transact(
        self,
        principal: Principal,
        workflow_id: str,
        make: Make,
        ctx: CallContext,
        *,
        fresh: bool = True,
        then: Then | None = None,
    ) -> Draft:
        """Load, decide, append; again when the run moved. The draft's error is raised after it is on record.

        ``then`` adds what follows in the same commit; what cannot be recorded of that is left for later.
        """
        tenant = principal.tenant
        async with self._lock(tenant, workflow_id):
            for attempt in range(TRIES):
                state = await self._load(tenant, workflow_id, fresh=fresh or attempt > 0)
                if state is None:
                    raise NotFound(f"There is no workflow {workflow_id}.", code="unknown_workflow")
                try:
                    draft = await make(state, *self.moment())
                except CharterError:
                    # A remembered state may be behind what another process did: look before saying no.
                    if not fresh and not attempt and await self._behind(state):
                        continue
                    raise
                if then is not None and attempt < TRIES // 2:
                    draft.then = await then(draft)
                if await self.commit_all(draft, state, principal, ctx):
                    break
            else:
                raise Unavailable("The workflow keeps changing under this command.", code="busy")
        if draft.abandoned is not None:
            for each in (draft, *draft.then):
                await self.effects.abandon(each, ctx)
            raise draft.abandoned
        if draft.error is not None:
            raise draft.error
        return draft

    async def commit_all(self, draft: Draft, before: State, principal: Principal, ctx: CallContext) -> bool:
        """``commit`` with what follows the draft; alone where that cannot be recorded."""
        try:
            return await self.commit(draft, before, principal, ctx)
        except InvalidInput:
            if not draft.then:
                raise
            draft.then = []  # what has happened goes on record whatever would follow
            return await self.commit(draft, before, principal, ctx)

    async def commit(self, draft: Draft, before: State, principal: Principal, ctx: CallContext) -> bool:
        """Append and remember. A caller that goes away meanwhile changes nothing of it; an effect is then never sent."""
        if draft.last.version == before.version:
            return True
        batch = batch_of(draft, before, principal, self.parts.sealer, ctx.trace_id)
        try:
            cancelled = await self._append(batch)
        except (VersionConflict, AlreadyClaimed):
            self.states.forget(before.tenant, before.workflow_id)
            return False
        except BaseException:
            self.states.forget(before.tenant, before.workflow_id)  # nobody knows what is on disk: load it anew
            raise
        self.states.remember(draft.last)
        self.states.snapshot_if_due(before, draft.last)
        self._tell(batch)
        if cancelled is not None:
            draft.abandoned = cancelled
        return True

    async def _load(self, tenant: str, workflow_id: str, *, fresh: bool) -> State | None:
        if not fresh:
            return await self.states.cached(tenant, workflow_id)
        with self.parts.tracing.inner_span(STORE_LOAD):
            return await self.states.fresh(tenant, workflow_id)

    async def _append(self, batch: Batch) -> asyncio.CancelledError | None:
        """Answers the cancellation that came meanwhile: the batch is on disk all the same."""
        moved: Conflict | None = None
        cancelled: asyncio.CancelledError | None = None
        with self.parts.tracing.inner_span(STORE_APPEND, {Attr.EVENTS: len(batch.events)}) as span:
            if span.is_recording():
                span.set_attribute(Attr.EVENT_TYPES, [event.type for event in batch.events])
            try:
                _, cancelled = await uninterrupted(self.parts.store.append(batch))
            except (
                VersionConflict,
                AlreadyClaimed,
            ) as conflict:  # the daily road, no failure for a viewer to paint red
                moved = conflict
                span.set_attribute(Attr.ERROR, conflict.error_code)
        if moved is not None:
            raise moved
        return cancelled

    def _tell(self, batch: Batch) -> None:
        types = [event.type for event in batch.events]
        for watcher in self.watchers:
            watcher(batch.tenant, batch.stream, types)
        self.parts.tracing.committed(batch.stream, batch.events)

    def nudge(self, tenant: str, workflow_id: str) -> None:
        """Have whoever drives look at this run at once, although nothing was put on record."""
        for watcher in self.watchers:
            watcher(tenant, workflow_id, ())

    async def _behind(self, state: State) -> bool:
        fresh = await self.states.fresh(state.tenant, state.workflow_id)
        return fresh is not None and fresh.version != state.version

    def _lock(self, tenant: str, workflow_id: str) -> asyncio.Lock:
        key = (tenant, workflow_id)
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def moment(self) -> tuple[str, Mint]:
        """Now, and the source of one command's ids."""
        unix_ms = self.parts.clock()
        return rfc3339(unix_ms), Mint(unix_ms, self.parts.entropy())

    async def given(self, state: State, principal: Principal, now: str, mint: Mint, **more: Any) -> Given:
        """What a decision on this run is given."""
        template = await self.templates.of(state.tenant, state.template_hash)
        return Given(now=now, mint=mint, principal=principal, instance=self.parts.instance, template=template, **more)

    # -- commands

    async def refuse_outside(self, principal: Principal, facts: Facts, decision: Decision, ctx: CallContext) -> None:
        event = ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision))
        await self.record_outside(principal, [event], ctx)
        raise denied(decision)

    async def record_outside(
        self,
        principal: Principal,
        events: Sequence[ev.Event],
        ctx: CallContext,
        *,
        stream: str | None = None,
        claims: tuple[Claim, ...] = (),
        command_id: str | None = None,
    ) -> None:
        """Put events that belong to no run on the tenant's own stream, or on a case's."""
        now, mint = self.moment()
        stream = stream or f"tenant:{principal.tenant}"
        command_id = command_id or mint.new("command")
        recorded = tuple(
            new_event(
                event.model_copy(update={"time": now}),
                mint=mint,
                actor=principal.actor(),
                command_id=command_id,
                correlation_id=stream,
                trace_id=ctx.trace_id,
            )
            for event in events
        )
        batch = Batch(tenant=principal.tenant, stream=stream, expected_version=None, events=recorded, claims=claims)
        cancelled = await self._append(batch)
        self._tell(batch)
        if cancelled is not None:
            raise cancelled

    # -- effects go on over several messages where an upstream asks for input

    async def resume_call(
        self, principal: Principal, effect_id: str, responses: Any, request_state: str | None, ctx: CallContext
    ) -> Any:
        """The next round of a call whose upstream asked its caller for input."""
        with self.under_way:  # not a new call: it goes on also while Charter is stopping
            return await self.effects.resume(principal, effect_id, responses, request_state, ctx)

    async def give_up_waiting(self) -> None:
        """Settle the calls whose callers never answered; the engine asks for it now and then."""
        await self.effects.give_up_waiting()

    async def drain(self, seconds: float) -> int:
        """Refuse every command from now on (``stopping``), and wait at most so many seconds for those under way.

        Answers how many still are. A tool call that is cut off then is in doubt, unless the tool may be called again.
        """
        return await self.under_way.drain(seconds)

    async def close(self) -> None:
        """Let what was cut off put its end on record, and background writing end."""
        await self.under_way.drain(CLOSING_SECONDS)
        await self.states.settle()
