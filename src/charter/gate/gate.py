"""The choke point: every governed thing passes ``Gate.handle`` or ``Gate.read`` and nowhere else.

One command: load the state, ask the policy, decide, append in one durable commit, then run the effect that was asked for and
put its outcome on record the same way. A run that moved meanwhile means deciding again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from charter.errors import CharterError, Conflict, InvalidInput, NotFound, Unavailable
from charter.gate import outcomes
from charter.gate.loading import States
from charter.gate.parts import NO_CONTEXT, CallContext, Parts
from charter.gate.preparing import Preparer
from charter.gate.recording import batch_of, new_event
from charter.gate.spans import APPROVAL, COMMAND, STORE_APPEND, Attr
from charter.gate.templates import KnownTemplates
from charter.gate.uninterrupted import uninterrupted
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.ids import Mint
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.model.times import rfc3339
from charter.store.port import AlreadyClaimed, Batch, VersionConflict
from charter.workflows import decide as rules
from charter.workflows import facts as facts_of
from charter.workflows.calls import denied
from charter.workflows.decide import runnable_steps
from charter.workflows.draft import Call, Draft, Given, policy_event
from charter.workflows.state import State
from charter.workflows.views import context

TRIES = 16
"""How often a command is decided again when the run moves under it; then the caller is told to try later."""

_MOMENTS = frozenset({"APPROVAL_REQUESTED", "APPROVAL_DECISION", "APPROVAL_CLOSED"})
"""Both ends of a wait for people are short spans in the run's own trace: a span open for days would be lost in a crash."""

Watcher = Callable[[str, str, Sequence[str]], None]
"""Told after each commit: tenant, stream, event types."""

Make = Callable[[State, str, Mint], Awaitable[Draft]]


class Gate:
    """See the module's text. One per process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.states = States(
            parts.store, capacity=parts.limits.cached_workflows, snapshot_every=parts.limits.snapshot_every
        )
        self.prepare = Preparer(parts)
        self.templates = KnownTemplates(parts.store, parts.templates)
        self.watchers: list[Watcher] = []
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._effects = outcomes.Effects(self)

    # -- the road in

    async def handle(self, principal: Principal, command: cmd.Command, ctx: CallContext = NO_CONTEXT) -> Any:
        """Carry out a command and answer with its reply (see ``model.reply``).

        Raises the errors of ``charter.errors``: ``Denied`` and ``Refused`` are on record, the others changed nothing.
        """
        tracing, began, outcome = self.parts.tracing, time.perf_counter(), "ok"
        workflow_id = getattr(command, "workflow_id", None)
        attributes = {
            Attr.COMMAND: command.kind,
            Attr.TENANT: principal.tenant,
            Attr.PRINCIPAL_KIND: principal.kind,
            Attr.WORKFLOW: workflow_id,
            Attr.INVOCATION: getattr(command, "agent_invocation_id", None),
        }
        tracing.annotate(attributes, workflow_id)
        with tracing.span(COMMAND, attributes):
            try:
                return await self._handle(principal, command, ctx)
            except CharterError as error:
                outcome = error.error_code
                raise
            finally:
                tracing.call_took(time.perf_counter() - began, tool=getattr(command, "tool", None), outcome=outcome)

    async def _handle(self, principal: Principal, command: cmd.Command, ctx: CallContext) -> Any:
        if isinstance(command, cmd.StartWorkflow):
            return await self._start(principal, command, ctx)
        if isinstance(command, cmd.PinTool):
            return await self._pin(principal, command, ctx)
        if isinstance(command, cmd.ProposeAction | cmd.RequestApproval | cmd.InvokeTool | cmd.CompleteStep):
            return await self._agent_command(principal, command, ctx)
        if isinstance(command, cmd.DecideApproval):
            row = await self.parts.store.approval(principal.tenant, command.approval_id)
            if row is None:
                raise NotFound(f"There is no approval {command.approval_id}.", next_step="List what is pending.")
            return await self._decide(principal, command, row.workflow_id, ctx)
        return await self._run_command(principal, command, ctx)

    # -- one transaction

    async def transact(
        self, principal: Principal, workflow_id: str, make: Make, ctx: CallContext, *, fresh: bool = True
    ) -> Draft:
        """Load, decide, append; again when the run moved. The draft's error is raised after it is on record."""
        tenant = principal.tenant
        async with self._lock(tenant, workflow_id):
            for attempt in range(TRIES):
                load = self.states.fresh if fresh or attempt else self.states.cached
                state = await load(tenant, workflow_id)
                if state is None:
                    raise NotFound(f"There is no workflow {workflow_id}.", code="unknown_workflow")
                try:
                    draft = await make(state, *self.moment())
                except CharterError:
                    # A remembered state may be behind what another process did: look before saying no.
                    if not fresh and not attempt and await self._behind(state):
                        continue
                    raise
                if await self._commit(draft, state, principal, ctx):
                    break
            else:
                raise Unavailable("The workflow keeps changing under this command.", code="busy")
        if draft.abandoned is not None:
            await self._effects.abandon(draft, ctx)
            raise draft.abandoned
        if draft.error is not None:
            raise draft.error
        return draft

    async def _commit(self, draft: Draft, before: State, principal: Principal, ctx: CallContext) -> bool:
        """Append and remember. A caller that goes away meanwhile changes nothing of it; an effect is then never sent."""
        if not draft.events:
            return True
        batch = batch_of(draft, before, principal, self.parts.sealer, ctx.trace_id)
        try:
            _, cancelled = await uninterrupted(self._append(batch))
        except (VersionConflict, AlreadyClaimed):
            self.states.forget(before.tenant, before.workflow_id)
            return False
        except BaseException:
            self.states.forget(before.tenant, before.workflow_id)  # nobody knows what is on disk: load it anew
            raise
        self.states.remember(draft.state)
        self.states.snapshot_if_due(before, draft.state)
        self._tell(batch)
        if cancelled is not None:
            draft.abandoned = cancelled
        return True

    async def _append(self, batch: Batch) -> None:
        with self.parts.tracing.span(STORE_APPEND, {Attr.EVENTS: len(batch.events)}):
            await self.parts.store.append(batch)

    def _tell(self, batch: Batch) -> None:
        types = [event.type for event in batch.events]
        for watcher in self.watchers:
            watcher(batch.tenant, batch.stream, types)
        for moment in _MOMENTS.intersection(types):
            self.parts.tracing.workflow_moment(batch.stream, f"{APPROVAL} {moment}", {Attr.TENANT: batch.tenant})

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

    async def _start(self, principal: Principal, command: cmd.StartWorkflow, ctx: CallContext) -> Any:
        template, template_hash = self.parts.templates.latest(command.template)
        self.templates.check_input(template, template_hash, command.input)
        facts = Facts(
            principal=principal,
            action="workflow.start",
            resource_type="Template",
            resource_id=template.ref,
            tenant=principal.tenant,
            template=template.ref,
            purpose=command.purpose,
            case_id=command.case_id,
            dry_run=command.dry_run,
        )
        decision = self.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._refuse_outside(principal, facts, decision, ctx)
        for _ in range(TRIES):
            known = await self._started_before(principal, command)
            if known is not None:
                return known
            now, mint = self.moment()
            state = State(workflow_id=mint.new("workflow"), tenant=principal.tenant)
            given = Given(now, mint, principal, self.parts.instance, template, facts=facts, decision=decision)
            draft = rules.start(state, command, given, template_hash=template_hash)
            draft.claims.extend(await self.templates.claim(principal.tenant, template, template_hash))
            if await self._commit(draft, state, principal, ctx):
                self.templates.remember(principal.tenant, template, template_hash)
                self.parts.tracing.workflow_started(state.workflow_id, template.ref)
                return context(draft.state, template, principal, now)
        raise Unavailable("The start could not be recorded.", code="busy")

    async def _started_before(self, principal: Principal, command: cmd.StartWorkflow) -> Any:
        if command.idempotency_key is None:
            return None
        key = f"{principal.id}|{command.idempotency_key}"
        workflow_id = await self.parts.store.claimed(principal.tenant, "start", key)
        if workflow_id is None:
            return None
        state = await self.states.fresh(principal.tenant, workflow_id)
        if state is None:
            return None
        same_template = command.template in (state.template, state.template.partition("@")[0])
        if not same_template or (state.input, state.purpose) != (command.input, command.purpose):
            raise Conflict(
                f"The idempotency key was used for another start ({workflow_id}).",
                code="idempotency_key_reused",
                next_step="Use a new idempotency_key for a new workflow.",
            )
        template = await self.templates.of(principal.tenant, state.template_hash)
        return context(state, template, principal, self.moment()[0])

    async def _agent_command(self, principal: Principal, command: Any, ctx: CallContext) -> Any:
        """The verbs of an agent: without a live run of this tenant the policy is asked all the same, and says no."""
        workflow_id = command.workflow_id
        if not workflow_id or not command.agent_invocation_id:
            await self._outside(principal, command, ctx)
        if await self.states.cached(principal.tenant, workflow_id) is None:
            await self._outside(principal, command, ctx)
        if isinstance(command, cmd.CompleteStep):
            return await self._complete(principal, command, ctx)
        command = await self._with_preview(principal, command) if isinstance(command, cmd.RequestApproval) else command
        preview = None
        if isinstance(command, tuple):
            command, preview = command

        async def make(state: State, now: str, mint: Mint) -> Draft:
            call = await self._call(state, principal, command, now)
            if preview is not None:
                call = outcomes.with_preview(call, preview)
            given = await self.given(state, principal, now, mint, call=call)
            return rules.decide(state, command, given)

        fresh = not isinstance(command, cmd.InvokeTool)
        draft = await self.transact(principal, workflow_id, make, ctx, fresh=fresh)
        if draft.effect is None:
            return draft.reply
        return await self._effects.run(draft, principal, ctx)

    async def _call(self, state: State, principal: Principal, command: Any, now: str) -> Call:
        if command.kind == "request_approval" or (command.kind == "invoke_tool" and command.proposal_id):
            return await self.prepare.for_proposal(state, principal, command, now)
        if command.tool is None:
            raise InvalidInput("Name a tool with its arguments, or a proposal_id.", code="nothing_to_invoke")
        return await self.prepare.for_arguments(
            state,
            principal,
            command.tool,
            command.arguments if command.arguments is not None else {},
            now,
            invocation_id=command.agent_invocation_id,
        )

    async def _with_preview(self, principal: Principal, command: cmd.RequestApproval) -> Any:
        """The preview is fetched before the run is locked: a slow upstream must not hold it."""
        state = await self.states.fresh(principal.tenant, command.workflow_id or "")
        proposal = state.proposals.get(command.proposal_id) if state else None
        if state is None or proposal is None or proposal.approval_id is not None:
            return command
        call = await self._call(state, principal, command, self.moment()[0])
        if call.decision.verdict != "require_approval" or call.manifest.dry_run is None:
            return command
        return command, await self.parts.runner.preview(call.manifest, call.arguments)

    async def _outside(self, principal: Principal, command: Any, ctx: CallContext) -> None:
        """A command that names no live run: the policy denies it, and the denial is on record. Always raises."""
        tool = getattr(command, "tool", None)
        manifest = self.prepare.manifest(tool) if tool else None
        base = {"principal": principal, "tenant": principal.tenant, "workflow_id": command.workflow_id or None}
        base["agent_invocation_id"] = command.agent_invocation_id or None
        if manifest is not None:
            quarantined = self.parts.tools.quarantine(manifest.name) is not None
            tool_facts = facts_of.tool_facts(manifest, quarantined=quarantined)
            base |= {"action": "tool.invoke", "resource_type": "Tool", "resource_id": manifest.name, "tool": tool_facts}
        else:
            action = "step.complete" if isinstance(command, cmd.CompleteStep) else "approval.request"
            base |= {"action": action, "resource_type": "Workflow", "resource_id": command.workflow_id or ""}
        facts = Facts.model_validate(base)
        decision = self.prepare.evaluate(facts)
        if decision.verdict == "permit" or not decision.code:  # no policy set may open this door
            decision = decision.model_copy(update={"verdict": "deny", "code": "no_workflow"})
        await self._refuse_outside(principal, facts, decision, ctx)

    async def _refuse_outside(self, principal: Principal, facts: Facts, decision: Decision, ctx: CallContext) -> None:
        event = ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision))
        await self.record_outside(principal, event, ctx)
        raise denied(decision)

    async def record_outside(self, principal: Principal, event: ev.Event, ctx: CallContext) -> None:
        """Put an event that belongs to no run on the tenant's own stream."""
        now, mint = self.moment()
        stream = f"tenant:{principal.tenant}"
        recorded = new_event(
            event.model_copy(update={"time": now}),
            mint=mint,
            actor=principal.actor(),
            command_id=mint.new("command"),
            correlation_id=stream,
            trace_id=ctx.trace_id,
        )
        batch = Batch(tenant=principal.tenant, stream=stream, expected_version=None, events=(recorded,))
        await self._append(batch)
        self._tell(batch)

    async def _complete(self, principal: Principal, command: cmd.CompleteStep, ctx: CallContext) -> Any:
        async def make(state: State, now: str, mint: Mint) -> Draft:
            live = facts_of.invocation_live(state, command.agent_invocation_id, principal, now)
            facts = facts_of.workflow_facts(state, principal, "step.complete").model_copy(
                update={"agent_invocation_id": command.agent_invocation_id, "invocation_live": live}
            )
            decision = self.prepare.evaluate(facts)
            if decision.verdict == "permit" and not live:
                raise denied(decision.model_copy(update={"verdict": "deny", "code": "no_invocation"}))
            given = await self.given(state, principal, now, mint, facts=facts, decision=decision)
            if live:
                self.templates.check_output(given.template, state, command)
            return rules.decide(state, command, given)

        draft = await self.transact(principal, command.workflow_id or "", make, ctx)
        step_id = draft.state.invocations[command.agent_invocation_id or ""].step_id
        return outcomes.step_result(draft, principal, step_id)

    async def _decide(
        self, principal: Principal, command: cmd.DecideApproval, workflow_id: str, ctx: CallContext
    ) -> Any:
        async def make(state: State, now: str, mint: Mint) -> Draft:
            approval = state.approvals.get(command.approval_id)
            if approval is None:
                raise NotFound(f"There is no approval {command.approval_id}.")
            facts = facts_of.decide_facts(state, principal, approval, command.channel, command.decision)
            decision = self.prepare.evaluate(facts)
            edited = await self._edited(state, command, approval.request.proposal_id, now)
            given = await self.given(state, principal, now, mint, facts=facts, decision=decision, call=edited)
            return rules.decide(state, command, given)

        return (await self.transact(principal, workflow_id, make, ctx)).reply

    async def _edited(
        self, state: State, command: cmd.DecideApproval, proposal_id: str | None, now: str
    ) -> Call | None:
        if command.decision != "edit":
            return None
        proposal = state.proposals.get(proposal_id or "")
        if command.edited_arguments is None or proposal is None:
            raise InvalidInput("An edit needs edited_arguments.", code="edit_needs_arguments")
        return await self.prepare.for_arguments(
            state,
            proposal.made.proposed_by,
            proposal.made.tool,
            command.edited_arguments,
            now,
            invocation_id=proposal.made.agent_invocation_id,
            step_id=proposal.made.step_id,
            match=False,
        )

    async def _run_command(self, principal: Principal, command: Any, ctx: CallContext) -> Any:
        """Commands on the run itself: cancel, advance, grants, effects, an ``action`` step's call."""

        async def make(state: State, now: str, mint: Mint) -> Draft:
            facts = self._run_facts(state, principal, command)
            decision = self.prepare.evaluate(facts) if facts else None
            given = await self.given(state, principal, now, mint, facts=facts, decision=decision)
            try:
                call = await self._effects.call_for(state, principal, command, now)
            except CharterError as error:
                # A step whose call cannot even be prepared has failed: on record, and the run goes on from there.
                return rules.unprepared(state, command, given, error)
            return rules.decide(state, command, replace(given, call=call))

        draft = await self.transact(principal, command.workflow_id, make, ctx)
        if draft.effect is not None:
            return await self._effects.run(draft, principal, ctx)
        if isinstance(command, cmd.AdvanceWorkflow):
            return tuple(runnable_steps(draft.state))
        if isinstance(command, cmd.CancelWorkflow):
            return context(draft.state, draft.given.template, principal, draft.given.now)
        return draft.reply

    def _run_facts(self, state: State, principal: Principal, command: Any) -> Facts | None:
        if isinstance(command, cmd.GiveGrant):
            manifest = self.prepare.manifest(command.bounds.tool)
            quarantined = self.parts.tools.quarantine(manifest.name) is not None
            return facts_of.grant_facts(state, principal, manifest, command.channel, quarantined=quarantined)
        if isinstance(command, cmd.RevokeGrant):
            return facts_of.workflow_facts(state, principal, "grant.revoke")
        if isinstance(command, cmd.CancelWorkflow):
            return facts_of.workflow_facts(state, principal, "workflow.cancel")
        if isinstance(command, cmd.ResolveEffect):
            return facts_of.workflow_facts(state, principal, "effect.resolve")
        if isinstance(command, cmd.AdvanceWorkflow | cmd.RecoverEffect | cmd.RunStep):
            outcomes.only_charter(principal)
        return None

    async def _pin(self, principal: Principal, command: cmd.PinTool, ctx: CallContext) -> str:
        manifest = self.prepare.manifest(command.tool)
        facts = Facts(
            principal=principal,
            action="tool.pin",
            resource_type="Tool",
            resource_id=manifest.name,
            tenant=principal.tenant,
            tool=facts_of.tool_facts(manifest, quarantined=True),
        )
        decision = self.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._refuse_outside(principal, facts, decision, ctx)
        data = ev.ToolPinned(
            tool=command.tool, old_hash=command.old_hash, new_hash=command.new_hash, pinned_by=principal.id
        )
        await self.record_outside(principal, ev.Event(type="TOOL_PINNED", time="", data=data), ctx)
        return command.new_hash

    # -- effects go on over several messages where an upstream asks for input

    async def resume_call(
        self, principal: Principal, effect_id: str, responses: Any, request_state: str | None, ctx: CallContext
    ) -> Any:
        """The next round of a call whose upstream asked its caller for input."""
        return await self._effects.resume(principal, effect_id, responses, request_state, ctx)

    async def close(self) -> None:
        """Let background writing end."""
        await self.states.settle()
