"""The commands of people and of the engine: decide, cancel, advance, grant, resolve, pin, erase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from charter.errors import InvalidInput, NotFound
from charter.gate import outcomes
from charter.gate.grants import check_bounds, check_case
from charter.gate.parts import CallContext
from charter.gate.uninterrupted import uninterrupted
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.ids import Mint
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal
from charter.workflows import advancing
from charter.workflows import decide as rules
from charter.workflows import facts as facts_of
from charter.workflows.approvals import refusal_of
from charter.workflows.children import unsettled
from charter.workflows.decide import runnable_steps
from charter.workflows.draft import Call, Draft, policy_event
from charter.workflows.state import State
from charter.workflows.views import blocked_by, context

if TYPE_CHECKING:
    from charter.gate.gate import Gate


_ON_A_RUN = (cmd.CancelWorkflow, cmd.ReviewStep, cmd.PauseWorkflow, cmd.ResumeWorkflow, cmd.RetryWorkflow)
"""The commands that answer with where the run is."""
_VERBS: Mapping[type, Action] = {
    cmd.RevokeGrant: "grant.revoke",
    cmd.CancelWorkflow: "workflow.cancel",
    cmd.ResolveEffect: "effect.resolve",
    cmd.PauseWorkflow: "workflow.pause",
    cmd.ResumeWorkflow: "workflow.pause",
    cmd.RetryWorkflow: "workflow.retry",
    cmd.ReviewStep: "step.review",
}
"""What the policy is asked for commands on the run as a whole."""


class RunCommands:
    """Carries out commands on runs for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def decide(
        self, principal: Principal, command: cmd.DecideApproval, workflow_id: str, ctx: CallContext
    ) -> Any:
        preview = await self._preview_of_edit(principal, command, workflow_id)

        async def make(state: State, now: str, mint: Mint) -> Draft:
            approval = state.approvals.get(command.approval_id)
            if approval is None:
                raise NotFound(f"There is no approval {command.approval_id}.")
            facts = facts_of.decide_facts(state, principal, approval, command.channel, command.decision)
            decision = self._gate.prepare.evaluate(facts)
            edited = await self._edited(state, command, approval.request.proposal_id, now)
            if edited is not None and preview is not None:
                edited = outcomes.with_preview(edited, preview)
            given = await self._gate.given(state, principal, now, mint, facts=facts, decision=decision, call=edited)
            return rules.decide(state, command, given)

        return (await self._gate.transact(principal, workflow_id, make, ctx)).reply

    async def delegate(
        self, principal: Principal, command: cmd.DelegateApproval, workflow_id: str, ctx: CallContext
    ) -> Any:
        async def make(state: State, now: str, mint: Mint) -> Draft:
            approval = state.approvals.get(command.approval_id)
            if approval is None:
                raise NotFound(f"There is no approval {command.approval_id}.")
            facts = facts_of.delegate_facts(state, principal, approval, command.channel, command.to)
            decision = self._gate.prepare.evaluate(facts)
            given = await self._gate.given(state, principal, now, mint, facts=facts, decision=decision)
            return rules.decide(state, command, given)

        return (await self._gate.transact(principal, workflow_id, make, ctx)).reply

    async def _preview_of_edit(self, principal: Principal, command: cmd.DecideApproval, workflow_id: str) -> str | None:
        """What the edited call would do, for who may edit it; fetched before the run is locked, as for a first request."""
        state = await self._gate.states.fresh(principal.tenant, workflow_id) if command.decision == "edit" else None
        approval = state.approvals.get(command.approval_id) if state else None
        now = self._gate.moment()[0]
        if state is None or approval is None or now >= approval.expires_at:
            return None
        facts = facts_of.decide_facts(state, principal, approval, command.channel, command.decision)
        may = self._gate.parts.evaluator.evaluate(facts).verdict == "permit"
        if not may or refusal_of(state, principal, command, approval) is not None:
            return None
        call = await self._edited(state, command, approval.request.proposal_id, now)
        if call is None or call.decision.verdict != "require_approval" or call.manifest.dry_run is None:
            return None
        return await self._gate.parts.runner.preview(call.manifest, call.arguments)

    async def _edited(
        self, state: State, command: cmd.DecideApproval, proposal_id: str | None, now: str
    ) -> Call | None:
        if command.decision != "edit" or proposal_id is None:
            return None
        proposal = state.proposals.get(proposal_id or "")
        if command.edited_arguments is None or proposal is None:
            raise InvalidInput("An edit needs edited_arguments.", code="edit_needs_arguments")
        return await self._gate.prepare.for_arguments(
            state,
            proposal.made.proposed_by,
            proposal.made.tool,
            command.edited_arguments,
            now,
            invocation_id=proposal.made.agent_invocation_id,
            step_id=proposal.made.step_id,
            match=False,
        )

    async def handle(self, principal: Principal, command: Any, ctx: CallContext) -> Any:
        """Commands on the run itself: cancel, advance, grants, effects, an ``action`` step's call."""
        if isinstance(command, cmd.GiveGrant | cmd.RevokeGrant):
            found = await self._grant_command(principal, command, ctx)
            if isinstance(found, str):
                return found
            command = found

        if isinstance(command, cmd.RunStep) and await self._starts_a_child(principal, command, ctx):
            return None

        driving = self._gate.driving

        async def make(state: State, now: str, mint: Mint) -> Draft:
            facts = self._run_facts(state, principal, command)
            if isinstance(command, cmd.RunStep):
                return await driving.draft(state, principal, command, now, mint)
            decision = self._gate.prepare.evaluate(facts) if facts else None
            given = await self._gate.given(state, principal, now, mint, facts=facts, decision=decision)
            if isinstance(command, cmd.ReviewStep) and decision is not None and decision.verdict == "permit":
                self._gate.templates.check_supplied(given.template, command)
            call = await self._gate.effects.call_for(state, principal, command, now)
            return rules.decide(state, self._within_caps(command, decision, now), replace(given, call=call))

        goes_on = isinstance(command, cmd.AdvanceWorkflow) and command.run_steps and outcomes.is_charter(principal)
        then = driving.begin if goes_on else None
        draft = await self._gate.transact(principal, command.workflow_id, make, ctx, then=then)
        if draft.effect is not None:
            return await self._gate.effects.run(draft, principal, ctx)
        if isinstance(command, cmd.AdvanceWorkflow):
            return await self._advanced(principal, draft, ctx)
        if isinstance(command, _ON_A_RUN):
            return context(draft.state, draft.given.template, principal, draft.given.now)
        return draft.reply

    async def _advanced(self, principal: Principal, draft: Draft, ctx: CallContext) -> Any:
        """The steps to run, for the engine; anybody else is told what was done, and the engine looks at the run at once."""
        if outcomes.is_charter(principal):
            settling = [self._gate.children.settle(principal, draft.last, ctx)] if unsettled(draft.last) else []
            await self._gate.driving.run(draft.then, ctx, *settling)
            return () if draft.then else tuple(runnable_steps(draft.last))
        reply = advancing.told(draft, tuple(runnable_steps(draft.state)))
        if any(item.what == "engine" for item in blocked_by(draft.state)) or reply.ready:
            self._gate.nudge(draft.state.tenant, draft.state.workflow_id)
        return reply

    async def _starts_a_child(self, principal: Principal, command: cmd.RunStep, ctx: CallContext) -> bool:
        outcomes.only_charter(principal)
        state = await self._gate.states.fresh(principal.tenant, command.workflow_id)
        step = state.steps.get(command.step_id) if state else None
        if state is None or step is None or step.step_type != "workflow":
            return False
        await self._gate.children.start(principal, state, command.step_id, ctx)
        return True

    async def _grant_command(
        self, principal: Principal, command: cmd.GiveGrant | cmd.RevokeGrant, ctx: CallContext
    ) -> str | cmd.GiveGrant | cmd.RevokeGrant:
        """A case's grant is carried out here and answers with its id; a run's own goes on to the run."""
        state = await self._gate.states.fresh(principal.tenant, command.workflow_id)
        if state is None:
            raise NotFound(f"There is no workflow {command.workflow_id}.", code="unknown_workflow")
        if isinstance(command, cmd.GiveGrant):
            check_case(command, state)
            if command.bounds.case_id is None:
                return command
        elif command.grant_id in state.grants or state.case_id is None:
            return command
        facts = self._run_facts(state, principal, command)
        if facts is None:
            return command
        decision = self._gate.prepare.evaluate(facts)
        if isinstance(command, cmd.GiveGrant):
            checked = self._within_caps(command, decision, self._gate.moment()[0])
            return await self._gate.case_grants.give(principal, checked, facts, decision, ctx)
        return await self._gate.case_grants.revoke(principal, command, state.case_id or "", facts, decision, ctx)

    def _within_caps(self, command: Any, decision: Decision | None, now: str) -> Any:
        """A grant with its bounds checked, where the policy lets it be given: whose it forbids are told why it does."""
        if not isinstance(command, cmd.GiveGrant) or decision is None or decision.verdict != "permit":
            return command
        return check_bounds(command, now, self._gate.parts.limits)

    def _run_facts(self, state: State, principal: Principal, command: Any) -> Facts | None:
        if isinstance(command, cmd.GiveGrant):
            manifest = self._gate.prepare.manifest(command.bounds.tool)
            quarantined = self._gate.parts.tools.quarantine(manifest.name) is not None
            return facts_of.grant_facts(state, principal, manifest, command.channel, quarantined=quarantined)
        verb = _VERBS.get(type(command))
        if verb is not None:
            return facts_of.workflow_facts(state, principal, verb)
        if isinstance(command, cmd.AdvanceWorkflow) and not outcomes.is_charter(principal):
            return facts_of.facts_of_worker(state, principal, "workflow.advance", self._gate.moment()[0])
        if isinstance(command, cmd.AdvanceWorkflow | cmd.RecoverEffect | cmd.RunStep | cmd.DeliverSignal):
            outcomes.only_charter(principal)
        return None

    async def pin(self, principal: Principal, command: cmd.PinTool, ctx: CallContext) -> str:
        manifest = self._gate.prepare.manifest(command.tool)
        facts = Facts(
            principal=principal,
            action="tool.pin",
            resource_type="Tool",
            resource_id=manifest.name,
            tenant=principal.tenant,
            tool=facts_of.tool_facts(manifest, quarantined=True),
        )
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._gate.refuse_outside(principal, facts, decision, ctx)
        data = ev.ToolPinned(
            tool=command.tool, old_hash=command.old_hash, new_hash=command.new_hash, pinned_by=principal.id
        )
        await self._gate.record_outside(principal, [ev.Event(type="TOOL_PINNED", time="", data=data)], ctx)
        return command.new_hash

    async def erase(self, principal: Principal, command: cmd.EraseSealed, ctx: CallContext) -> str:
        """On record first: a crash in between leaves the bytes, and the same command again deletes them.

        Raises ``Denied`` (on record), ``NotFound`` (``erased``) where nothing is sealed under the reference.
        """
        tenant = principal.tenant
        facts = Facts(
            principal=principal, action="record.erase", resource_type="Ledger", resource_id=tenant, tenant=tenant
        )
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._gate.refuse_outside(principal, facts, decision, ctx)
        if await self._gate.parts.store.unseal(tenant, command.ref) is None:
            raise NotFound(f"Nothing is sealed under {command.ref!r}; it may be erased already.", code="erased")
        data = ev.SealedErased(ref=command.ref, erased_by=principal.id, reason=command.reason)
        events = [
            ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision)),
            ev.Event(type="SEALED_ERASED", time="", data=data),
        ]

        async def carry_out() -> None:
            await self._gate.record_outside(principal, events, ctx)
            await self._gate.parts.store.erase(tenant, command.ref)

        _, left = await uninterrupted(carry_out())
        if left is not None:
            raise left
        return command.ref
