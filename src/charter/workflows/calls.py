"""Tool calls: proposed, asked about, invoked, and how they ended."""

from __future__ import annotations

from typing import cast

from charter.errors import Denied, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval_events import UnderGrant
from charter.model.effect import Effect
from charter.model.next_steps import NOT_PERMITTED
from charter.model.policy import Decision
from charter.model.reply import ProposalView, ToolOutcome
from charter.model.template import CallStep, Step, WaitStep
from charter.workflows import asking, failing, steps
from charter.workflows.approval_state import ApprovalState
from charter.workflows.draft import Call, Draft, Secret, digest_of, policy_event
from charter.workflows.quorum import requirements_of, who
from charter.workflows.state import ProposalState, State

# -- proposing


def propose(draft: Draft, command: cmd.ProposeAction, call: Call) -> None:
    """Put a proposal and the policy's decision on record; the same open call again answers with the same proposal."""
    proposal = draft.state.proposals.get(call.proposal_id or "")
    if proposal is None:
        proposal = make_proposal(draft, call, command.reason)
    elif command.reason and command.reason != proposal.made.reason and _asked_for_more(draft, proposal):
        _withdraw(draft, proposal, "The agent answered with a new proposal.")
        proposal = make_proposal(draft, call, command.reason, replaces=proposal.made.proposal_id)
    decision_on(draft, call, proposal.made)
    draft.reply = view(draft, proposal, call.decision)


def _asked_for_more(draft: Draft, proposal: ProposalState) -> bool:
    approval = draft.state.approvals.get(proposal.approval_id or "")
    if approval is None or approval.status != "pending" or not approval.decisions:
        return False
    return approval.decisions[-1].decision == "request_more_info"


def _withdraw(draft: Draft, proposal: ProposalState, reason: str) -> None:
    closed = ev.ApprovalClosed(approval_id=proposal.approval_id or "", status="withdrawn", reason=reason)
    draft.emit("APPROVAL_CLOSED", closed)


def make_proposal(draft: Draft, call: Call, reason: str, replaces: str | None = None) -> ProposalState:
    """A new proposal on record; its real arguments are sealed when any of them is sensitive."""
    mint = draft.given.mint
    proposal_id, salt = mint.new("proposal"), mint.salt()
    sealed_ref = None
    if call.sensitive:
        sealed_ref = mint.new("sealed")
        draft.secrets.append(Secret(ref=sealed_ref, content={"arguments": call.arguments, "salt": salt}))
    made = ev.ProposalMade(
        proposal_id=proposal_id,
        agent_invocation_id=call.agent_invocation_id,
        step_id=call.step_id,
        tool=call.manifest.name,
        definition_hash=call.manifest.definition_hash,
        arguments=call.redacted,
        digest=digest_of(draft.state, call, salt),
        salt=None if call.sensitive else salt,
        sealed_ref=sealed_ref,
        reason=reason,
        risk=call.manifest.risk,
        replaces=replaces,
        proposed_by=call.facts.principal,
    )
    draft.emit("PROPOSAL_MADE", made)
    return draft.state.proposals[proposal_id]


def decision_on(draft: Draft, call: Call, made: ev.ProposalMade) -> None:
    """Put the policy's decision on a proposal on record."""
    facts = call.facts.model_copy(update={"input": call.redacted})
    names = {"digest": made.digest, "proposal_id": made.proposal_id, "shadow": call.shadow}
    draft.policy(facts, call.decision, **names)


def view(draft: Draft, proposal: ProposalState, decision: Decision) -> ProposalView:
    """The proposal and its decision as the agent sees it."""
    proposal = draft.state.proposals.get(proposal.made.proposal_id, proposal)
    approval = draft.state.approvals.get(proposal.approval_id or "")
    made = proposal.made
    return ProposalView(
        proposal_id=made.proposal_id,
        workflow_id=draft.state.workflow_id,
        agent_invocation_id=made.agent_invocation_id,
        tool=made.tool,
        digest=made.digest,
        decision=decision.verdict,
        reason=decision.reason,
        code=decision.code,
        policy_ids=decision.policy_ids,
        policy_set_hash=decision.policy_set_hash,
        requirements=requirements_of(decision),
        approval_id=approval.request.approval_id if approval else None,
        approval_status=approval.status if approval else None,
        expires_at=approval.expires_at if approval else None,
        next_step=next_step(decision, approval, made.proposal_id),
    )


def next_step(decision: Decision, approval: ApprovalState | None, proposal_id: str) -> str:
    """What the agent does with a proposal that was decided on so."""
    if decision.verdict == "permit":
        return f"Call invoke_tool with proposal_id {proposal_id}."
    if decision.verdict == "deny":
        return decision.next_step or NOT_PERMITTED
    if approval is None or approval.status in ("expired", "withdrawn", "approved"):
        return f"Call request_approval with proposal_id {proposal_id}."
    if approval.status == "rejected":
        return "People said no. Propose something else, or complete the step without it."
    return (
        f"Waiting for {who(approval.request.requirements)}. Call get_workflow to follow it; "
        f"after approval call invoke_tool with proposal_id {proposal_id}."
    )


# -- asking people


def request_approval(draft: Draft, command: cmd.RequestApproval, call: Call) -> None:
    """Ask people about a proposal, once."""
    proposal = draft.state.proposals[command.proposal_id]
    if (refusal := spent(draft.state, proposal)) is not None:
        draft.refuse("request_approval", refusal, proposal_id=command.proposal_id)
        return
    expire_due(draft, proposal)
    if not _must_ask(draft, call, proposal):
        draft.reply = view(draft, proposal, call.decision)
        return
    decision_on(draft, call, proposal.made)
    if call.decision.verdict == "deny":
        draft.error = denied(call.decision)
        return
    asked = call.decision.verdict == "require_approval"
    if asked:
        ask(draft, call, proposal)
    draft.reply = view(draft, proposal, call.decision).model_copy(update={"asked_now": asked})


def _must_ask(draft: Draft, call: Call, proposal: ProposalState) -> bool:
    """False while people are being asked, or have answered as much as the policy wants.

    What they approved no longer suffices when the policy set has changed meanwhile: it is withdrawn, and they are asked anew.
    """
    approval = draft.state.approvals.get(proposal.approval_id or "")
    if approval is None or approval.status not in ("pending", "approved"):
        return True
    if approval.status == "pending" or call.decision.verdict == "permit":
        return False
    if call.decision.verdict == "require_approval":
        _withdraw(draft, proposal, "The policy asks for more than was approved.")
    return True


def expire_due(draft: Draft, proposal: ProposalState) -> bool:
    """Close the proposal's approval if its time has passed; True when it did."""
    approval = draft.state.approvals.get(proposal.approval_id or "")
    if approval is None or approval.status not in ("pending", "approved"):
        return False
    if draft.given.now < approval.expires_at:
        return False
    closed = ev.ApprovalClosed(
        approval_id=approval.request.approval_id,
        status="expired",
        reason="Nobody answered or used it in time.",
    )
    draft.emit("APPROVAL_CLOSED", closed)
    return True


def _rejected(approval: ApprovalState) -> Refused:
    last = approval.decisions[-1]
    said = f": {last.comment}" if last.comment else "."
    return Refused(
        f"{last.decided_by} rejected this proposal{said}",
        code="approval_rejected",
        next_step="Propose something else, or complete the step without it.",
    )


def ask(draft: Draft, call: Call, proposal: ProposalState) -> None:
    """Put the request to people on record."""
    request = asking.request_for_call(draft, call, proposal.made)
    draft.emit("APPROVAL_REQUESTED", ev.ApprovalRequested(request=request))


# -- invoking


def denied(decision: Decision) -> Denied:
    """The policy's no as an error."""
    return Denied(
        decision.reason,
        code=decision.code,
        next_step=decision.next_step,
        detail={"policy_ids": list(decision.policy_ids), "policy_set_hash": decision.policy_set_hash},
    )


def invoke(draft: Draft, command: cmd.InvokeTool, call: Call) -> None:
    """Run a call that the policy permits; where approval is missing, make the proposal and say so."""
    proposal = draft.state.proposals.get(call.proposal_id or "")
    if proposal is not None and (refusal := spent(draft.state, proposal)) is not None:
        draft.refuse("invoke_tool", refusal, proposal_id=call.proposal_id, tool=call.manifest.name)
        return
    if draft.state.status == "paused":
        draft.refuse("invoke_tool", steps.paused(), proposal_id=call.proposal_id, tool=call.manifest.name)
        return
    if proposal is not None:
        expire_due(draft, proposal)
    if call.decision.verdict == "permit":
        start(draft, call, proposal)
        return
    if proposal is None and call.decision.verdict == "require_approval":
        proposal = make_proposal(draft, call, command.reason)
    if proposal is not None:
        decision_on(draft, call, proposal.made)
    else:
        draft.policy(call.facts.model_copy(update={"input": call.redacted}), call.decision, shadow=call.shadow)
    if call.decision.verdict == "deny" or proposal is None:
        draft.error = denied(call.decision)
        return
    _answer_pending(draft, call, proposal)


def spent(state: State, proposal: ProposalState) -> Refused | None:
    """Why a proposal can never run any more, or None."""
    made = proposal.made
    if proposal.effect_id is not None:
        return _used(state, made.proposal_id, proposal.effect_id)
    if proposal.replaced_by is not None:
        return Refused(
            f"Proposal {made.proposal_id} was replaced by {proposal.replaced_by}.",
            code="proposal_replaced",
            next_step=f"Call invoke_tool with proposal_id {proposal.replaced_by}.",
        )
    approval = state.approvals.get(proposal.approval_id or "")
    return _rejected(approval) if approval is not None and approval.status == "rejected" else None


def _used(state: State, proposal_id: str, effect_id: str) -> Refused:
    effect = state.effects.get(effect_id)
    if effect is not None and effect.status == "in_doubt":
        return Refused(
            f"Proposal {proposal_id} was sent to its tool (effect {effect_id}), and nobody knows yet whether it ran.",
            code="effect_in_doubt",
            next_step="Do not propose it again: it may have run. An operator finds out and settles it with "
            f"`charter effects resolve {effect_id}`; get_workflow tells when that is done.",
        )
    if effect is not None:
        return Refused(
            f"Proposal {proposal_id} is running (effect {effect_id}).",
            code="already_used",
            next_step="Call get_workflow to follow it.",
        )
    return Refused(
        f"Proposal {proposal_id} has run already (effect {effect_id}); a proposal and its approval are good for one call.",
        code="already_used",
        next_step="If you need the call again, propose it again with propose_action.",
    )


def _answer_pending(draft: Draft, call: Call, proposal: ProposalState) -> None:
    shown = view(draft, proposal, call.decision)
    draft.reply = ToolOutcome(
        status="pending_approval",
        workflow_id=draft.state.workflow_id,
        proposal_id=shown.proposal_id,
        tool=shown.tool,
        proposal=shown,
        error_code="approval_required",
        error_message=f"Nothing has run: {call.decision.reason}",
        next_step=shown.next_step,
    )


def start(draft: Draft, call: Call, proposal: ProposalState | None) -> None:
    """Put the intent on record and hand out the effect."""
    given, state = draft.given, draft.state
    mint = given.mint
    approval = state.approvals.get(proposal.approval_id or "") if proposal else None
    used = approval is not None and approval.status == "approved"
    if approval is not None and proposal is not None and approval.status == "pending":
        _withdraw(draft, proposal, "The policy permits the call without it.")
    effect_id = mint.new("effect")
    sealed_ref, salt = (proposal.made.sealed_ref, proposal.made.salt) if proposal else (None, mint.salt())
    digest = proposal.made.digest if proposal else digest_of(state, call, cast(str, salt))
    proposal_id = proposal.made.proposal_id if proposal else mint.new("proposal")
    if proposal is None and call.sensitive:
        sealed_ref = mint.new("sealed")
        draft.secrets.append(Secret(ref=sealed_ref, content={"arguments": call.arguments, "salt": salt}))
        salt = None
    facts = call.facts.model_copy(update={"input": call.redacted})
    record = policy_event(facts, call.decision, digest=digest, proposal_id=proposal_id, shadow=call.shadow)
    draft.emit("POLICY_DECISION", record)
    approval_ids = (approval.request.approval_id,) if approval is not None and used else ()
    draft.claims.extend(("approval", item, effect_id) for item in approval_ids)
    if call.grant_claim is not None:
        draft.claims.append((*call.grant_claim, effect_id))
    invoke_event = ev.ToolInvoke(
        effect_id=effect_id,
        attempt=1,
        idempotency_key=draft.key_of(call) or effect_id,
        idempotent=call.manifest.repeatable,
        proposal_id=proposal_id,
        agent_invocation_id=call.agent_invocation_id,
        step_id=call.step_id,
        tool=call.manifest.name,
        definition_hash=call.manifest.definition_hash,
        arguments=call.redacted,
        digest=digest,
        salt=salt,
        sealed_ref=sealed_ref,
        approval_ids=approval_ids,
        grant_id=call.grant_id,
        grant_use=call.grant_use,
        under_grant=_under_grant(draft, call),
        instance=given.instance,
        dry_run=state.dry_run or any(item.name == "dry_run" for item in call.decision.obligations),
    )
    draft.emit("TOOL_INVOKE", invoke_event)
    draft.effect = effect_of(draft, invoke_event, call)


def _under_grant(draft: Draft, call: Call) -> UnderGrant | None:
    if call.grant_given_by is None:
        return None
    separation = draft.given.template.separation_of_duties if call.agent_invocation_id is None else "none"
    return UnderGrant(given_by=call.grant_given_by, roles=call.grant_for, separation=separation)


def effect_of(draft: Draft, invoked: ev.ToolInvoke, call: Call) -> Effect:
    """The effect for the runner."""
    return Effect(
        effect_id=invoked.effect_id,
        tenant=draft.state.tenant,
        workflow_id=draft.state.workflow_id,
        step_id=invoked.step_id,
        tool=call.manifest,
        arguments=call.arguments,
        idempotency_key=invoked.idempotency_key,
        attempt=invoked.attempt,
        dry_run=invoked.dry_run,
        for_step=invoked.agent_invocation_id is None,
        template=draft.state.template,
        number=_number(draft, invoked),
    )


def _number(draft: Draft, invoked: ev.ToolInvoke) -> int:
    invocation = draft.state.invocations.get(invoked.agent_invocation_id or "")
    if invocation is not None:
        return max(1, invocation.calls_used)
    step = draft.state.steps.get(invoked.step_id)
    return max(1, step.attempt) if step is not None else 1


def run_step(draft: Draft, command: cmd.RunStep, call: Call) -> None:
    """A step's own tool call: permitted runs, asked waits for people, denied fails the step."""
    step = steps.step_named(draft.given.template, command.step_id)
    proposal = draft.state.proposals.get(call.proposal_id or "")
    if call.decision.verdict == "permit":
        start(draft, call, proposal)
        return
    if call.decision.verdict == "deny":
        draft.policy(call.facts.model_copy(update={"input": call.redacted}), call.decision, shadow=call.shadow)
        failing.fail_step(draft, step, call.decision.code, call.decision.reason)
        return
    if proposal is None:
        proposal = make_proposal(draft, call, _reason(step) or f"Step {step.id!r} of the workflow.")
    decision_on(draft, call, proposal.made)
    if _must_ask(draft, call, proposal):
        ask(draft, call, proposal)


def _reason(step: Step) -> str:
    if isinstance(step, WaitStep):
        return step.poll.reason if step.poll is not None else ""
    return step.reason if isinstance(step, CallStep) else ""
