"""The verbs of an agent: propose, ask people, invoke, complete a step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from charter.errors import CharterError, InvalidInput
from charter.gate import outcomes
from charter.gate.hiding import is_hidden, unknown_tool
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model.ids import Mint
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.model.reply import ProposalView
from charter.workflows import decide as rules
from charter.workflows import facts as facts_of
from charter.workflows.calls import denied
from charter.workflows.draft import Call, Draft
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate


class AgentCommands:
    """Carries out agents' commands for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def handle(self, principal: Principal, command: Any, ctx: CallContext) -> Any:
        """The verbs of an agent: without a live run of this tenant the policy is asked all the same, and says no.

        A no about a tool that the caller may not know of is the answer for unknown ones; the reason is on record.
        """
        try:
            reply = await self._handle(principal, command, ctx)
        except (CharterError, UnicodeEncodeError):
            self._hide(principal, command)
            raise
        if isinstance(reply, ProposalView) and reply.decision == "deny":
            self._hide(principal, command)
        return reply

    def _hide(self, principal: Principal, command: Any) -> None:
        name = getattr(command, "tool", None) or ""
        if getattr(command, "proposal_id", None) is None and is_hidden(self._gate.parts, principal, name):
            raise unknown_tool(name) from None

    async def _handle(self, principal: Principal, command: Any, ctx: CallContext) -> Any:
        workflow_id = command.workflow_id
        if not workflow_id or not command.agent_invocation_id:
            await self.outside(principal, command, ctx)
        if await self._gate.states.cached(principal.tenant, workflow_id) is None:
            await self.outside(principal, command, ctx)
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
            given = await self._gate.given(state, principal, now, mint, call=call)
            return rules.decide(state, command, given)

        fresh = not isinstance(command, cmd.InvokeTool)
        draft = await self._gate.transact(principal, workflow_id, make, ctx, fresh=fresh)
        if draft.effect is None:
            return draft.reply
        return await self._gate.effects.run(draft, principal, ctx)

    async def _call(self, state: State, principal: Principal, command: Any, now: str) -> Call:
        if command.kind == "request_approval" or (command.kind == "invoke_tool" and command.proposal_id):
            return await self._gate.prepare.for_proposal(state, principal, command, now)
        if command.tool is None:
            raise InvalidInput("Name a tool with its arguments, or a proposal_id.", code="nothing_to_invoke")
        return await self._gate.prepare.for_arguments(
            state,
            principal,
            command.tool,
            command.arguments if command.arguments is not None else {},
            now,
            invocation_id=command.agent_invocation_id,
        )

    async def _with_preview(self, principal: Principal, command: cmd.RequestApproval) -> Any:
        """The preview is fetched before the run is locked: a slow upstream must not hold it."""
        state = await self._gate.states.fresh(principal.tenant, command.workflow_id or "")
        proposal = state.proposals.get(command.proposal_id) if state else None
        if state is None or proposal is None or proposal.approval_id is not None:
            return command
        call = await self._call(state, principal, command, self._gate.moment()[0])
        if call.decision.verdict != "require_approval" or call.manifest.dry_run is None:
            return command
        return command, await self._gate.parts.runner.preview(call.manifest, call.arguments)

    async def outside(self, principal: Principal, command: Any, ctx: CallContext) -> None:
        """A command that names no live run: the policy denies it, and the denial is on record. Always raises."""
        tool = getattr(command, "tool", None)
        manifest = self._gate.prepare.manifest(tool) if tool else None
        base = {"principal": principal, "tenant": principal.tenant, "workflow_id": command.workflow_id or None}
        base["agent_invocation_id"] = command.agent_invocation_id or None
        if manifest is not None:
            quarantined = self._gate.parts.tools.quarantine(manifest.name) is not None
            tool_facts = facts_of.tool_facts(manifest, quarantined=quarantined)
            base |= {"action": "tool.invoke", "resource_type": "Tool", "resource_id": manifest.name, "tool": tool_facts}
        else:
            action = "step.complete" if isinstance(command, cmd.CompleteStep) else "approval.request"
            base |= {"action": action, "resource_type": "Workflow", "resource_id": command.workflow_id or ""}
        facts = Facts.model_validate(base)
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict == "permit" or not decision.code:  # no policy set may open this door
            decision = decision.model_copy(update={"verdict": "deny", "code": "no_workflow"})
        await self._gate.refuse_outside(principal, facts, decision, ctx)

    async def _complete(self, principal: Principal, command: cmd.CompleteStep, ctx: CallContext) -> Any:
        async def make(state: State, now: str, mint: Mint) -> Draft:
            live = facts_of.invocation_live(state, command.agent_invocation_id, principal, now)
            facts = facts_of.workflow_facts(state, principal, "step.complete").model_copy(
                update={"agent_invocation_id": command.agent_invocation_id, "invocation_live": live}
            )
            decision = self._gate.prepare.evaluate(facts)
            if decision.verdict == "permit" and not live:
                raise denied(decision.model_copy(update={"verdict": "deny", "code": "no_invocation"}))
            given = await self._gate.given(state, principal, now, mint, facts=facts, decision=decision)
            if not live:
                return rules.decide(state, command, given)
            handed = self._gate.templates.checked_output(given.template, state, command)
            problems = self._gate.templates.schema_problems(given.template, state, handed)
            return rules.decide(state, handed, replace(given, schema_problems=problems))

        draft = await self._gate.transact(principal, command.workflow_id or "", make, ctx)
        step_id = draft.state.invocations[command.agent_invocation_id or ""].step_id
        return outcomes.step_result(draft, principal, step_id)
