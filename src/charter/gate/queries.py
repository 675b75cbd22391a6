"""``Gate.read``: what people and agents may see. The policy is asked here too; reads are not put on record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from charter.errors import NotFound, Refused
from charter.gate import hiding
from charter.gate.actions import Actions, working_in
from charter.gate.grants import Standing, standing_grants
from charter.model import commands as cmd
from charter.model.actions import AgentActions
from charter.model.plain_text import one_line
from charter.model.policy import Action, Facts
from charter.model.principal import Principal
from charter.model.reply import ApprovalView, ToolView, WorkflowContext
from charter.model.tool import ToolManifest
from charter.store.port import ApprovalRow, EffectRow, Filter, Page, WorkflowRow
from charter.workflows import facts as facts_of
from charter.workflows.approval_state import ApprovalState
from charter.workflows.approvals import not_to_hand_over, refusal_of
from charter.workflows.calls import denied
from charter.workflows.quorum import standing
from charter.workflows.state import State
from charter.workflows.views import context

if TYPE_CHECKING:
    from charter.gate.gate import Gate

HISTORY_EVENTS = 40


class Queries:
    """The reading half of the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._parts = gate.parts

    def _demand(self, facts: Facts) -> None:
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict != "permit":
            raise denied(decision)

    def may(self, principal: Principal, action: Action) -> bool:
        """True when the policy permits this verb on the tenant's ledger as a whole."""
        return self._gate.prepare.evaluate(self._ledger(principal, action)).verdict == "permit"

    def _ledger(self, principal: Principal, action: Action) -> Facts:
        return Facts(
            principal=principal,
            action=action,
            resource_type="Ledger",
            resource_id=principal.tenant,
            tenant=principal.tenant,
        )

    async def state(self, principal: Principal, workflow_id: str, action: Action = "workflow.read") -> State:
        """A run's state, if this caller may see it. Raises ``NotFound`` and ``Denied``."""
        state = await self._gate.states.fresh(principal.tenant, workflow_id)
        if state is None:
            raise NotFound(f"There is no workflow {one_line(workflow_id)}.", code="unknown_workflow")
        self._demand(facts_of.facts_of_worker(state, principal, action, self._gate.moment()[0]))
        return state

    async def workflow(self, principal: Principal, workflow_id: str) -> WorkflowContext:
        """Where a run is."""
        state = await self.state(principal, workflow_id)
        template = await self._gate.templates.of(state.tenant, state.template_hash)
        return context(state, template, principal, self._gate.moment()[0])

    async def actions(
        self,
        principal: Principal,
        workflow_id: str,
        invocation_id: str | None = None,
        *,
        names: Sequence[str] | None = None,
        agent_roles: tuple[str, ...] = (),
    ) -> AgentActions:
        """What an agent may do in a run now, and why not the rest; ``names``: of these tools alone.

        Who works in it is told of itself, an agent always. A person who may read the run is told of the agent that works in it;
        ``agent_roles``: with these roles. Raises ``NotFound`` and ``Denied``.
        """
        state = await self.state(principal, workflow_id)
        agent, now = principal, self._gate.moment()[0]
        if principal.kind != "agent" and not facts_of.granted_a_step(state, principal, now):
            agent = working_in(state, invocation_id, agent_roles) or principal
        tools = tuple(tool for tool in self.visible(agent) if names is None or tool.name in names)
        return await Actions(self._gate, agent, tools).of(state, invocation_id)

    async def workflows(self, principal: Principal, where: Filter, page: Page) -> tuple[list[WorkflowRow], str | None]:
        """The runs of the tenant for those who may read all, else the caller's own."""
        if not self.may(principal, "audit.read"):
            where = replace(where, owner=principal.acts_for or principal.id, extra={})
        return await self._parts.store.workflows(principal.tenant, where, page)

    def could_ever_of(self, principal: Principal, action: Action) -> bool:
        """False when the policy denies this principal this verb on whatever it is about."""
        return self._parts.evaluator.could_ever_of(principal, action)

    # -- tools

    def visible(self, principal: Principal) -> tuple[ToolManifest, ...]:
        """The tools that the policy could ever permit this principal."""
        return tuple(tool for tool in self._parts.tools.all() if hiding.could_ever(self._parts, principal, tool))

    def hidden(self, principal: Principal, name: str) -> bool:
        """Whether this tool is kept for roles that the principal does not hold, so that it must not know of it."""
        return hiding.is_hidden(self._parts, principal, name)

    async def tools(self, principal: Principal, workflow_id: str, invocation_id: str) -> tuple[ToolView, ...]:
        """The tools that this invocation may use, with what each would need."""
        state = await self.state(principal, workflow_id)
        invocation = state.invocations.get(invocation_id)
        now = self._gate.moment()[0]
        if invocation is None or not facts_of.invocation_live(state, invocation_id, principal, now):
            raise NotFound(
                f"You hold no open invocation {invocation_id!r} in this workflow.",
                code="no_invocation",
                next_step="Call get_workflow to see your open invocations.",
            )
        allowed = (tool for tool in self.visible(principal) if facts_of.allows(invocation, tool.name))
        return tuple(self._view(state, principal, tool, invocation_id, invocation.step_id, now) for tool in allowed)

    def _view(
        self, state: State, principal: Principal, tool: ToolManifest, invocation_id: str, step_id: str, now: str
    ) -> ToolView:
        quarantine = self._parts.tools.quarantine(tool.name)
        facts = facts_of.call_facts(
            state,
            principal,
            tool,
            now=now,
            quarantined=quarantine is not None,
            step_id=step_id,
            agent_invocation_id=invocation_id,
            arguments={},
            approval=None,
            grant_id=None,
        ).model_copy(update={"input": None, "arguments_refused": None})
        verdict = self._parts.evaluator.evaluate(facts).verdict
        approval = {"permit": "not_needed", "require_approval": "needed"}.get(verdict, "depends")
        return ToolView.model_validate(
            {
                "name": tool.name,
                "title": tool.title,
                "description": tool.description,
                "input_schema": tool.input_schema,
                "output_schema": tool.output_schema,
                "risk": tool.risk,
                "side_effects": tool.side_effects,
                "idempotent": tool.idempotent,
                "approval": "unavailable" if quarantine else approval,
                "note": "Quarantined: its definition has changed; an operator must accept it." if quarantine else None,
            }
        )

    # -- approvals

    async def approvals(self, principal: Principal, where: Filter, page: Page) -> tuple[list[ApprovalRow], str | None]:
        """Requests, newest first: all of the tenant's for those who may read all, else those of the caller's own runs."""
        if not self.may(principal, "approval.read"):
            where = Filter(status=where.status, workflow_id=where.workflow_id, owner=principal.acts_for or principal.id)
        return await self._parts.store.approvals(principal.tenant, where, page)

    async def approval(self, principal: Principal, approval_id: str) -> ApprovalView:
        """One request with everything a person needs to decide."""
        state, approval = await self._approval(principal, approval_id)
        facts = facts_of.decide_facts(state, principal, approval, "console", "approve")
        self._demand(facts.model_copy(update={"action": "approval.read", "channel": None, "verdict": None}))
        proposal = state.proposals.get(approval.request.proposal_id or "")
        stands = standing(approval)
        return ApprovalView(
            request=approval.request,
            status=approval.status,
            still_needed=stands.left,
            or_instead=stands.instead,
            expires_at=approval.expires_at,
            delegations=approval.delegations,
            decisions=approval.decisions,
            arguments=proposal.made.arguments if proposal else {},
            history=await self._history(state, approval),
            purpose=state.purpose,
            template=state.template,
        )

    async def check_decision(self, principal: Principal, command: cmd.DecideApproval | cmd.DelegateApproval) -> None:
        """Would this answer be taken now? Asked before a person is bothered; nothing goes on record.

        Raises what the gate would: ``NotFound``, ``Refused``, ``Denied``.
        """
        state, approval = await self._approval(principal, command.approval_id)
        if isinstance(command, cmd.DelegateApproval):
            refusal = not_to_hand_over(state, principal, command, approval)
            facts = facts_of.delegate_facts(state, principal, approval, command.channel, command.to)
        else:
            refusal = refusal_of(state, principal, command, approval)
            facts = facts_of.decide_facts(state, principal, approval, command.channel, command.decision)
        if refusal is not None:
            raise refusal
        if self._gate.moment()[0] >= approval.expires_at:
            raise Refused(f"Approval {command.approval_id} has expired.", code="approval_expired")
        self._demand(facts)

    async def _approval(self, principal: Principal, approval_id: str) -> tuple[State, ApprovalState]:
        row = await self._parts.store.approval(principal.tenant, approval_id)
        state = await self._gate.states.fresh(principal.tenant, row.workflow_id) if row else None
        if row is None or state is None:
            raise NotFound(f"There is no approval {one_line(approval_id)}.", next_step="List what is pending.")
        return state, state.approvals[approval_id]

    async def _history(self, state: State, approval: ApprovalState) -> tuple[str, ...]:
        after = max(0, state.version - 10 * HISTORY_EVENTS)
        stored = await self._parts.store.load(state.tenant, state.workflow_id, after_version=after)
        lines = [line for item in stored if (line := history_line(item.type, orjson.loads(item.leaf)))]
        return tuple(lines[-HISTORY_EVENTS:])

    async def effects(self, principal: Principal, where: Filter, page: Page) -> tuple[list[EffectRow], str | None]:
        """Effects that run or are in doubt; for those who may read all."""
        self._demand(self._ledger(principal, "audit.read"))
        return await self._parts.store.effects(principal.tenant, where, page)

    async def grants(self, principal: Principal, workflow_id: str) -> list[Standing]:
        """The standing grants that a run may use: its own and its case's."""
        return await standing_grants(self._parts.store, await self.state(principal, workflow_id))

    # -- the record

    async def events(
        self, principal: Principal, workflow_id: str, after_version: int = 0, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """A run's events as recorded, in order: ``limit`` of those after the first ``after_version``."""
        await self.state(principal, workflow_id, "audit.read")
        stored = await self._parts.store.load(principal.tenant, workflow_id, after_version, limit)
        return [orjson.loads(item.leaf) for item in stored]

    async def result(self, principal: Principal, workflow_id: str, effect_id: str) -> dict[str, Any]:
        """A result that was too large to answer with. Raises ``NotFound``."""
        await self.state(principal, workflow_id)
        stored = await self._parts.store.load(principal.tenant, workflow_id)
        for item in reversed(stored):
            data = orjson.loads(item.leaf)["data"] if item.type == "TOOL_RESULT" else {}
            if data.get("effect_id") == effect_id and data.get("result_ref"):
                content: dict[str, Any] = await self._gate.prepare.secret(principal.tenant, data["result_ref"])
                return content
        raise NotFound(f"Effect {effect_id} has no stored result.")


def history_line(event_type: str, event: dict[str, Any]) -> str | None:
    """One event as a line for an approver, or None for what does not help to decide. Computed facts only."""
    data = event["data"]
    at = event["time"][11:19]
    if event_type == "TOOL_INVOKE":
        return f"{at} ran {data['tool']}"
    if event_type == "TOOL_RESULT":
        return f"{at} it {'answered with an error' if data.get('is_error') else data['status']}"
    if event_type == "POLICY_DECISION" and data["verdict"] == "deny":
        return f"{at} was denied {data['facts']['resource_id']}: {data['code']}"
    if event_type == "STEP_REVIEWED":
        return f"{at} {data['reviewed_by']} reviewed step {data['step_id']}: {data['resolution']}"
    if event_type == "APPROVAL_REQUESTED":
        return f"{at} asked for {data['request'].get('tool', 'a decision')}"
    if event_type == "APPROVAL_DECISION":
        return f"{at} {data['decided_by']} answered {data['decision']}"
    if event_type == "APPROVAL_ESCALATED":
        return f"{at} it was escalated"
    if event_type == "APPROVAL_DELEGATED":
        return f"{at} {data['delegated_by']} handed their part to {data['delegated_to']}"
    return None
