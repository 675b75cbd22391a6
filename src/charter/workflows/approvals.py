"""Decisions: quorum, roles, expiry and separation of duties are enforced here, where the decision is stored."""

from __future__ import annotations

from charter.errors import CharterError, Denied, NotFound, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.principal import AGENT_APPROVER, Principal, person_key
from charter.model.reply import Decided
from charter.model.template import ApprovalStep
from charter.workflows import asking, asking_others, calls, quorum, steps, verdicts
from charter.workflows.approval_state import ApprovalState
from charter.workflows.draft import Call, Draft
from charter.workflows.facts import works_in
from charter.workflows.state import State

_ASK_ANOTHER = "Ask somebody else to decide."


def refusal_of(
    state: State, caller: Principal, command: cmd.DecideApproval, approval: ApprovalState
) -> CharterError | None:
    """What the state itself forbids, whatever a policy says."""
    request = approval.request
    refusal = closed(approval) or _wrong_caller(state, caller, command, approval)
    if refusal is not None:
        return refusal
    if command.digest is not None and command.digest != request.digest:
        return mismatch()
    if command.decision == "edit" and (not request.allow_edit or caller.kind != "human"):
        return Refused(
            "This approval cannot be edited.",
            code="edit_not_allowed",
            next_step="Approve it, reject it, or ask for more.",
        )
    if command.decision in ("approve", "edit"):
        return _no_part(state, caller, command, approval)
    return None


def closed(approval: ApprovalState) -> Refused | None:
    """The refusal, where nothing is left to decide."""
    if approval.status == "pending":
        return None
    by = f" by {approval.decisions[-1].decided_by}" if approval.decisions else ""
    return Refused(
        f"Approval {approval.request.approval_id} is not open any more: {approval.status}{by}.",
        code="already_decided",
        next_step="Nothing is left to decide here; list what is pending.",
    )


def mismatch() -> Refused:
    """The digest is another one."""
    return Refused(
        "What you saw is not what this approval is for.",
        code="digest_mismatch",
        next_step="Read the approval again and decide on what it shows now.",
    )


def _wrong_caller(
    state: State, caller: Principal, command: cmd.DecideApproval, approval: ApprovalState
) -> CharterError | None:
    if caller.kind == "agent" and AGENT_APPROVER in caller.roles:
        if works_in(state, caller, approval):
            return Denied(
                "An agent decides on nothing in a run that it works in, and on nothing of its own person's.",
                code="own_action",
                next_step=_ASK_ANOTHER,
            )
        if not (command.comment or "").strip():
            return Refused(
                "An agent's decision goes on record with its reasoning, and there is none.",
                code="reasoning_required",
                next_step="Send the decision again with your reasoning.",
            )
    elif caller.kind != "human":
        return Denied(
            f"A credential of kind {caller.kind!r} cannot answer for a person.",
            code="agent_cannot_decide",
            next_step="A person decides, with a credential of their own: the command line, or a prompt of their client.",
        )
    if person_key(caller.id) == person_key(approval.request.requested_by):
        return Denied("Nobody approves their own action.", code="own_action", next_step=_ASK_ANOTHER)
    return None


def _no_part(
    state: State, caller: Principal, command: cmd.DecideApproval, approval: ApprovalState
) -> CharterError | None:
    """Why this caller's yes (or change) would not count, where it is not to be recorded at all."""
    if any(person_key(item.delegated_by) == person_key(caller.id) for item in approval.delegations):
        return Refused(
            "You handed your part in this decision to somebody else.",
            code="handed_over",
            next_step="They decide now; you may still reject it, or ask for more.",
        )
    answer = answer_of(caller, command, approval, "approved")
    if command.decision == "approve" and _approved_already(approval, answer):
        return Refused("You approved this already; another person is needed.", code="already_decided_by_you")
    elsewhere = quorum.passed_elsewhere(state, approval, quorum.behind(answer))
    if elsewhere is not None:
        return Refused(
            f"You had a part in letting step {elsewhere!r} pass, and the workflow wants another person here.",
            code="duties_separate",
            next_step=_ASK_ANOTHER,
        )
    if command.decision == "approve" and asking_others.comes_later(approval, answer):
        return Refused(
            "You are not asked yet: others decide before you.",
            code="not_your_turn",
            next_step="The request shows who is asked now; you are asked after them.",
        )
    if asking_others.no_longer_asked(approval, answer):
        return Refused(
            "Others are asked in your place: it was escalated.",
            code="escalated",
            next_step="The request shows who is asked now; you may still reject it.",
        )
    return None


def _approved_already(approval: ApprovalState, answer: ev.ApprovalDecided) -> bool:
    """Who approved before it was escalated to them may do so again: only then it counts as theirs."""
    mine = [
        index
        for index, item in enumerate(approval.decisions)
        if item.decision == "approve" and quorum.counted_as(item) == quorum.counted_as(answer)
    ]
    if not mine:
        return False
    since = zip(approval.request.escalations, approval.answered_before, strict=False)
    return not any(mine[-1] < before and quorum.fits(item, answer) for item, before in since)


def decide(draft: Draft, command: cmd.DecideApproval, replacement: Call | None) -> None:
    """One answer of a person, or of an agent that the policy lets decide."""
    approval = draft.state.approvals.get(command.approval_id)
    if approval is None:
        draft.error = NotFound(f"There is no approval {command.approval_id}.")
        return
    asking_others.look(draft, approval)
    approval = draft.state.approvals[command.approval_id]
    refusal = refusal_of(draft.state, draft.given.principal, command, approval)
    if refusal is not None:
        draft.refuse("decide_approval", refusal, approval_id=command.approval_id)
        return
    if _policy_permits(draft, command.approval_id):
        _ANSWERS[command.decision](draft, command, approval, replacement)


def _policy_permits(draft: Draft, approval_id: str) -> bool:
    facts, decision = draft.given.facts, draft.given.decision
    if facts is None or decision is None:
        draft.error = Denied("No policy was asked.", code="no_decision")
        return False
    draft.policy(facts, decision, approval_id=approval_id)
    if decision.verdict != "permit":
        draft.error = calls.denied(decision)
    return decision.verdict == "permit"


def answer_of(
    caller: Principal, command: cmd.DecideApproval, approval: ApprovalState, status: str
) -> ev.ApprovalDecided:
    """This answer as it goes on record, with the part that the caller has in it."""
    stands_for, roles = asking_others.part_of(approval, caller)
    return ev.ApprovalDecided.model_validate(
        {
            "approval_id": command.approval_id,
            "decision": command.decision,
            "decided_by": caller.id,
            "decided_by_kind": caller.kind,
            "acts_for": caller.acts_for if caller.kind == "agent" else None,
            "roles": roles,
            "on_behalf_of": stands_for,
            "channel": command.channel,
            "digest": approval.request.digest,
            "comment": command.comment,
            "signature": command.signature,
            "status": status,
        }
    )


def _approve(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    caller = draft.given.principal
    answer = answer_of(caller, command, approval, "approved")
    stands = quorum.standing(approval, (*approval.decisions, answer))
    status = "approved" if stands.met else "pending"
    draft.emit("APPROVAL_DECISION", answer.model_copy(update={"status": status}))
    if not stands.met:
        asking_others.next_turn(draft, draft.state.approvals[command.approval_id])
    draft.reply = Decided(
        approval_id=command.approval_id,
        status=status,
        decision="approve",
        still_needed=stands.left,
        or_instead=stands.instead,
        next_step="The agent may run it now, once." if stands.met else f"Still needed: {quorum.whom(stands)}.",
    )
    if stands.met:
        verdicts.approved(draft, draft.state.approvals[command.approval_id], caller.id, command.comment)


def _reject(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    caller = draft.given.principal
    draft.emit("APPROVAL_DECISION", answer_of(caller, command, approval, "rejected"))
    draft.reply = Decided(
        approval_id=command.approval_id, status="rejected", decision="reject", next_step="Nothing runs."
    )
    verdicts.rejected(draft, approval, caller.id, command.comment)


def _ask_more(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    draft.emit("APPROVAL_DECISION", answer_of(draft.given.principal, command, approval, "more_info"))
    draft.reply = Decided(
        approval_id=command.approval_id,
        status="pending",
        decision="request_more_info",
        next_step="The agent sees your question; the request stays open.",
    )


def _edit(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, replacement: Call | None) -> None:
    if approval.request.proposal_id is None:
        _edit_step(draft, command, approval)
        return
    if replacement is None:
        draft.error = Refused("The edited call could not be evaluated.", code="edit_failed")
        return
    old_id = approval.request.proposal_id
    old = draft.state.proposals[old_id]
    # The id is known before the event that names it, since the decision must name its replacement.
    proposal = calls.make_proposal(draft, replacement, old.made.reason, replaces=old_id)
    answer = answer_of(draft.given.principal, command, approval, "edited")
    answer = answer.model_copy(update={"replacement_proposal_id": proposal.made.proposal_id})
    draft.emit("APPROVAL_DECISION", answer)
    facts = replacement.facts.model_copy(update={"input": replacement.redacted})
    draft.policy(facts, replacement.decision, digest=proposal.made.digest, proposal_id=proposal.made.proposal_id)
    if replacement.decision.verdict == "require_approval":
        calls.ask(draft, replacement, proposal)
    new_approval = draft.state.proposals[proposal.made.proposal_id].approval_id
    draft.reply = Decided(
        approval_id=command.approval_id,
        status="edited",
        decision="edit",
        replacement_proposal_id=proposal.made.proposal_id,
        replacement_approval_id=new_approval,
        decision_of_replacement=replacement.decision,
        next_step=f"The edited call is a new request: decide on {new_approval}."
        if new_approval
        else f"The policy's answer to the edited call: {replacement.decision.reason}",
    )


def _edit_step(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState) -> None:
    """Other values under the same labels: a new revision, on which everybody decides anew."""
    step = steps.step_named(draft.given.template, approval.request.step_id)
    assert isinstance(step, ApprovalStep)
    request = asking.revised(draft, step, approval.request, command.edited_arguments)
    answer = answer_of(draft.given.principal, command, approval, "edited")
    draft.emit("APPROVAL_DECISION", answer.model_copy(update={"replacement_approval_id": request.approval_id}))
    draft.emit("APPROVAL_REQUESTED", ev.ApprovalRequested(request=request))
    draft.reply = Decided(
        approval_id=command.approval_id,
        status="edited",
        decision="edit",
        replacement_approval_id=request.approval_id,
        next_step=f"Revision {request.revision} is a new request: decide on {request.approval_id}.",
    )


_ANSWERS = {"approve": _approve, "reject": _reject, "request_more_info": _ask_more, "edit": _edit}


def delegate(draft: Draft, command: cmd.DelegateApproval) -> None:
    """A person hands their part in a decision to another."""
    approval = draft.state.approvals.get(command.approval_id)
    if approval is None:
        draft.error = NotFound(f"There is no approval {command.approval_id}.")
        return
    asking_others.look(draft, approval)
    approval = draft.state.approvals[command.approval_id]
    refusal = not_to_hand_over(draft.state, draft.given.principal, command, approval)
    if refusal is not None:
        draft.refuse("delegate_approval", refusal, approval_id=command.approval_id)
    elif _policy_permits(draft, command.approval_id):
        asking_others.hand_over(draft, command, approval)


def not_to_hand_over(
    state: State, caller: Principal, command: cmd.DelegateApproval, approval: ApprovalState
) -> CharterError | None:
    """What the state itself forbids about a delegation: who may not approve has no part to hand over."""
    if caller.kind != "human":
        return Denied("Only a person hands their part over.", code="agent_cannot_decide")
    yes = cmd.DecideApproval(
        approval_id=command.approval_id, decision="approve", channel=command.channel, digest=command.digest
    )
    refusal = refusal_of(state, caller, yes, approval)
    return refusal or asking_others.no_delegate(approval, answer_of(caller, yes, approval, "approved"), command.to)


# -- standing grants


def give_grant(draft: Draft, command: cmd.GiveGrant) -> None:
    """Put a standing grant on record, if the policy lets this person give it."""
    if not may(draft, "give_grant"):
        return
    grant_id = draft.given.mint.new("grant")
    draft.emit(
        "GRANT_GIVEN",
        ev.GrantGiven(
            grant_id=grant_id,
            bounds=command.bounds,
            given_by=draft.given.principal.id,
            roles=draft.given.principal.roles,
            channel=command.channel,
            comment=command.comment,
        ),
    )
    draft.reply = grant_id


def revoke_grant(draft: Draft, command: cmd.RevokeGrant) -> None:
    """Take a grant back."""
    grant = draft.state.grants.get(command.grant_id)
    if grant is None or grant.revoked:
        draft.error = NotFound(f"There is no live grant {command.grant_id}.")
        return
    if not may(draft, "revoke_grant"):
        return
    data = ev.GrantRevoked(grant_id=command.grant_id, revoked_by=draft.given.principal.id, comment=command.comment)
    draft.emit("GRANT_REVOKED", data)
    draft.reply = command.grant_id


def may(draft: Draft, command: str) -> bool:
    """True when the policy permits the command on this run and the run is live; its answer, and a refusal, go on record."""
    if not permitted(draft):
        return False
    if not draft.state.live:
        draft.refuse(command, ended(draft))
        return False
    return True


def permitted(draft: Draft) -> bool:
    """True when the policy permits the command on this run, live or not; its answer goes on record."""
    facts, decision = draft.given.facts, draft.given.decision
    if facts is None or decision is None:
        draft.error = Denied("No policy was asked.", code="no_decision")
        return False
    draft.policy(facts, decision)
    if decision.verdict != "permit":
        draft.error = calls.denied(decision)
        return False
    return True


def ended(draft: Draft) -> Refused:
    """The run is over."""
    return Refused(
        f"Workflow {draft.state.workflow_id} has ended: {draft.state.status}.",
        code="workflow_ended",
        next_step="Start another workflow.",
    )
