"""What a policy is told about a command, computed from the state. Nothing is assumed: what is not known stays absent."""

from __future__ import annotations

from collections.abc import Mapping

from charter.model.base import JsonObject
from charter.model.policy import Action, ApprovalFacts, Approved, Facts, ToolFacts
from charter.model.principal import Channel, Principal, person_key
from charter.model.tool import ToolManifest
from charter.workflows import argument_rules
from charter.workflows.approval_state import ApprovalState
from charter.workflows.state import InvocationState, State


def tool_facts(manifest: ToolManifest, *, quarantined: bool) -> ToolFacts:
    """The manifest as a policy sees it."""
    return ToolFacts(
        name=manifest.name,
        server=manifest.server,
        risk=manifest.risk,
        side_effects=manifest.side_effects,
        idempotent=manifest.idempotent,
        quarantined=quarantined,
        tags=manifest.tags,
        roles=manifest.roles,
    )


def granted_to(invocation: InvocationState, principal: Principal) -> bool:
    """True when this caller may use this invocation: it is its own, for a role that it has, or for any agent and unclaimed."""
    if invocation.agent == "*":
        return principal.kind == "agent"
    if invocation.agent.startswith("role:"):
        return invocation.agent[5:] in principal.roles
    return invocation.agent == principal.id


def allows(invocation: InvocationState, tool: str) -> bool:
    """True when the open step allows this tool: what it forbids outweighs what it allows."""
    if any(argument_rules.matches(pattern, tool) for pattern in invocation.forbidden_tools):
        return False
    return any(argument_rules.matches(pattern, tool) for pattern in invocation.allowed_tools)


def invocation_live(state: State, invocation_id: str | None, principal: Principal, now: str) -> bool:
    """True when the invocation is of this run, open, not expired, and granted to this caller."""
    invocation = state.invocations.get(invocation_id or "")
    if invocation is None or invocation.status != "open" or not state.live:
        return False
    return now < invocation.expires_at and granted_to(invocation, principal)


def approvers_of(approval: ApprovalState | None) -> tuple[Approved, ...]:
    """Those who approved, if the approval may still be used."""
    if approval is None or approval.status not in ("pending", "approved"):
        return ()
    return tuple(
        Approved.model_validate(
            {
                "approver": item.decided_by,
                "roles": item.roles,
                "channel": item.channel,
                "kind": item.decided_by_kind,
                "acts_for": item.acts_for,
                "on_behalf_of": item.on_behalf_of,
            }
        )
        for item in approval.decisions
        if item.decision == "approve"
    )


def call_facts(
    state: State,
    principal: Principal,
    manifest: ToolManifest,
    *,
    now: str,
    quarantined: bool,
    step_id: str | None,
    agent_invocation_id: str | None,
    arguments: JsonObject,
    approval: ApprovalState | None,
    grant_id: str | None,
) -> Facts:
    """The facts of one tool call. An expired approval counts for nothing."""
    invocation = state.invocations.get(agent_invocation_id or "")
    live = invocation_live(state, agent_invocation_id, principal, now)
    expired = approval is not None and now >= approval.expires_at
    own_step = principal.kind == "service" and step_id in state.steps and state.steps[step_id].status == "open"
    refused = None
    if invocation is not None and invocation.argument_rules:
        refused = argument_rules.broken(invocation.argument_rules, manifest.name, arguments)
    return Facts(
        principal=principal,
        action="tool.invoke",
        resource_type="Tool",
        resource_id=manifest.name,
        tenant=state.tenant,
        tool=tool_facts(manifest, quarantined=quarantined),
        workflow_id=state.workflow_id,
        workflow_live=state.live,
        workflow_owner=state.owner,
        workflow_started_by=state.started_by,
        agent_invocation_id=agent_invocation_id,
        invocation_live=live,
        template=state.template,
        step_id=step_id,
        purpose=state.purpose,
        case_id=state.case_id,
        tool_allowed=own_step or (invocation is not None and allows(invocation, manifest.name)),
        arguments_refused=refused,
        dry_run=state.dry_run,
        calls_used=invocation.calls_used if invocation else 0,
        calls_budget=invocation.calls_budget if invocation else 0,
        approvals=() if expired else approvers_of(approval),
        grant_id=grant_id,
        input=arguments,
    )


def works_in(state: State, caller: Principal, approval: ApprovalState) -> bool:
    """True for who started the run or works in it, and for an agent whose person it serves: what is decided is their own."""
    mine = {person_key(name) for name in (caller.id, caller.acts_for) if name}
    request = approval.request
    theirs = [state.started_by, request.requested_by]
    theirs += [name for name in (state.owner, request.owner) if name] if caller.kind == "agent" else []
    for proposal in state.proposals.values():
        by = proposal.made.proposed_by
        theirs += [by.id, *([by.acts_for] if by.acts_for and caller.kind == "agent" else [])]
    if mine & {person_key(name) for name in theirs}:
        return True
    return any(granted_to(invocation, caller) for invocation in state.invocations.values())


def approval_facts(state: State, caller: Principal, approval: ApprovalState) -> ApprovalFacts:
    """The approval as a policy sees it. ``amounts`` of a call are the whole numbers among its arguments, as recorded."""
    request = approval.request
    asked = (*request.requirements, *request.escalations[: approval.escalated])
    proposal = state.proposals.get(request.proposal_id or "")
    numbers = proposal.made.arguments if proposal else request.amounts
    return ApprovalFacts(
        approval_id=request.approval_id,
        risk=request.risk,
        tool=request.tool,
        requested_by=request.requested_by,
        requested_by_kind=request.requested_by_kind,
        owner=request.owner,
        roles=tuple(sorted({item.role for item in asked if item.role})),
        channels=tuple(sorted({channel for item in asked for channel in item.channels})),
        people=tuple(sorted({name for item in asked for name in item.people})),
        delegates=tuple(sorted({item.delegated_to for item in approval.delegations})),
        works_here=works_in(state, caller, approval),
        amounts=tuple(sorted(amounts_of(numbers).items())),
    )


def amounts_of(numbers: Mapping[str, object]) -> dict[str, int]:
    """The whole numbers that a policy may judge by."""
    return {
        key: value
        for key, value in numbers.items()
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    }


def decide_facts(state: State, principal: Principal, approval: ApprovalState, channel: Channel, verdict: str) -> Facts:
    """The facts of a person's answer to an approval."""
    return Facts(
        principal=principal,
        action="approval.decide",
        resource_type="Approval",
        resource_id=approval.request.approval_id,
        tenant=state.tenant,
        approval=approval_facts(state, principal, approval),
        workflow_id=state.workflow_id,
        workflow_live=state.live,
        workflow_owner=state.owner,
        workflow_started_by=state.started_by,
        agent_invocation_id=approval.request.agent_invocation_id,
        template=state.template,
        step_id=approval.request.step_id,
        purpose=state.purpose,
        case_id=state.case_id,
        dry_run=state.dry_run,
        approvals=approvers_of(approval),
        channel=channel,
        verdict=verdict,
    )


def delegate_facts(state: State, principal: Principal, approval: ApprovalState, channel: Channel, to: str) -> Facts:
    """The facts of handing a part in a decision to another person."""
    changes = {"action": "approval.delegate", "verdict": None, "delegate_to": to}
    return decide_facts(state, principal, approval, channel, "approve").model_copy(update=changes)


def grant_facts(
    state: State, principal: Principal, manifest: ToolManifest, channel: Channel, *, quarantined: bool
) -> Facts:
    """The facts of a person's standing grant for one tool."""
    return workflow_facts(state, principal, "grant.give", channel=channel).model_copy(
        update={
            "resource_type": "Tool",
            "resource_id": manifest.name,
            "tool": tool_facts(manifest, quarantined=quarantined),
        }
    )


def ledger_facts(principal: Principal, action: Action) -> Facts:
    """The facts of a command or a look at the tenant's ledger as a whole."""
    tenant = principal.tenant
    return Facts(principal=principal, action=action, resource_type="Ledger", resource_id=tenant, tenant=tenant)


def workflow_facts(state: State, principal: Principal, action: Action, *, channel: Channel | None = None) -> Facts:
    """The facts of a command on the run itself."""
    return Facts(
        principal=principal,
        action=action,
        resource_type="Workflow",
        resource_id=state.workflow_id,
        tenant=state.tenant,
        workflow_id=state.workflow_id,
        workflow_live=state.live,
        workflow_owner=state.owner,
        workflow_started_by=state.started_by,
        template=state.template,
        purpose=state.purpose,
        case_id=state.case_id,
        dry_run=state.dry_run,
        channel=channel,
    )


def granted_a_step(state: State, principal: Principal, now: str) -> bool:
    """Whether a step of this run is granted to the principal now."""
    return any(invocation_live(state, key, principal, now) for key in state.invocations)


def facts_of_worker(state: State, principal: Principal, action: Action, now: str) -> Facts:
    """The same for a verb that also those have to whom a step of this run is granted."""
    facts = workflow_facts(state, principal, action)
    return facts.model_copy(update={"invocation_live": True}) if granted_a_step(state, principal, now) else facts
