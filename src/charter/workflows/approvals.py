"""People decide: quorum, roles, expiry and separation of duties are enforced here, where the decision is stored."""

from __future__ import annotations

from charter.errors import CharterError, Denied, NotFound, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval import Requirement
from charter.model.principal import Principal, person_key
from charter.model.reply import Decided
from charter.workflows import calls, steps
from charter.workflows.draft import Call, Draft
from charter.workflows.state import ApprovalState


def still_needed(
    requirements: tuple[Requirement, ...], decisions: tuple[ev.ApprovalDecided, ...]
) -> tuple[Requirement, ...]:
    """The requirements that these approvals do not meet yet, with the number of people still missing.

    Each person counts once a requirement. Every requirement is counted for itself: one person who holds both roles
    counts for both, since both policies say so; a template that wants two people asks for two approvers.
    """
    out = []
    for item in requirements:
        people = {
            person_key(decision.decided_by)
            for decision in decisions
            if decision.decision == "approve"
            and (item.role is None or item.role in decision.roles)
            and (not item.channels or decision.channel in item.channels)
        }
        if len(people) < item.approvers:
            out.append(item.model_copy(update={"approvers": item.approvers - len(people)}))
    return tuple(out)


def refusal_of(person: Principal, command: cmd.DecideApproval, approval: ApprovalState) -> CharterError | None:
    """What the state itself forbids, whatever a policy says."""
    request = approval.request
    if approval.status != "pending":
        by = f" by {approval.decisions[-1].decided_by}" if approval.decisions else ""
        return Refused(
            f"Approval {request.approval_id} is not open any more: {approval.status}{by}.",
            code="already_decided",
            next_step="Nothing is left to decide here; list what is pending.",
        )
    if person.kind != "human":
        return Denied(
            f"A credential of kind {person.kind!r} cannot answer for a person.",
            code="agent_cannot_decide",
            next_step="A person decides, with a credential of their own: the command line, or a prompt of their client.",
        )
    if person_key(person.id) == person_key(request.requested_by):
        return Denied("Nobody approves their own action.", code="own_action", next_step="Ask somebody else to decide.")
    if command.digest is not None and command.digest != request.digest:
        return Refused(
            "What you saw is not what this approval is for.",
            code="digest_mismatch",
            next_step="Read the approval again and decide on what it shows now.",
        )
    if command.decision == "approve" and any(
        person_key(item.decided_by) == person_key(person.id) and item.decision == "approve"
        for item in approval.decisions
    ):
        return Refused("You approved this already; another person is needed.", code="already_decided_by_you")
    if command.decision == "edit" and not request.allow_edit:
        return Refused(
            "This approval cannot be edited.",
            code="edit_not_allowed",
            next_step="Approve it, reject it, or ask for more.",
        )
    return None


def decide(draft: Draft, command: cmd.DecideApproval, replacement: Call | None) -> None:
    """One person's answer."""
    approval = draft.state.approvals.get(command.approval_id)
    if approval is None:
        draft.error = NotFound(f"There is no approval {command.approval_id}.")
        return
    if approval.status == "pending" and draft.given.now >= approval.request.expires_at:
        expire(draft, approval)
        approval = draft.state.approvals[command.approval_id]
    refusal = refusal_of(draft.given.principal, command, approval)
    if refusal is not None:
        draft.refuse("decide_approval", refusal, approval_id=command.approval_id)
        return
    facts, decision = draft.given.facts, draft.given.decision
    if facts is None or decision is None:
        draft.error = Denied("No policy was asked.", code="no_decision")
        return
    draft.policy(facts, decision, approval_id=command.approval_id)
    if decision.verdict != "permit":
        draft.error = calls.denied(decision)
        return
    _ANSWERS[command.decision](draft, command, approval, replacement)


def _answer(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, status: str) -> ev.ApprovalDecided:
    person = draft.given.principal
    return ev.ApprovalDecided.model_validate(
        {
            "approval_id": command.approval_id,
            "decision": command.decision,
            "decided_by": person.id,
            "decided_by_kind": person.kind,
            "roles": person.roles,
            "channel": command.channel,
            "digest": approval.request.digest,
            "comment": command.comment,
            "status": status,
        }
    )


def _approve(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    answer = _answer(draft, command, approval, "approved")
    left = still_needed(approval.request.requirements, (*approval.decisions, answer))
    status = "pending" if left else "approved"
    draft.emit("APPROVAL_DECISION", answer.model_copy(update={"status": status}))
    draft.reply = Decided(
        approval_id=command.approval_id,
        status=status,
        decision="approve",
        still_needed=left,
        next_step=f"Still needed: {calls.who(left)}." if left else "The agent may run it now, once.",
    )
    if not left and approval.request.proposal_id is None:
        step = steps.step_named(draft.given.template, approval.request.step_id)
        output = {"decision": "approve", "decided_by": draft.given.principal.id, "comment": command.comment or ""}
        steps.complete_step(draft, step, output)


def _reject(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    draft.emit("APPROVAL_DECISION", _answer(draft, command, approval, "rejected"))
    draft.reply = Decided(
        approval_id=command.approval_id, status="rejected", decision="reject", next_step="Nothing runs."
    )
    request = approval.request
    if request.agent_invocation_id is None:
        step = steps.step_named(draft.given.template, request.step_id)
        said = f": {command.comment}" if command.comment else "."
        steps.reject_step(draft, step, f"{draft.given.principal.id} rejected it{said}")


def _ask_more(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, _replacement: Call | None) -> None:
    draft.emit("APPROVAL_DECISION", _answer(draft, command, approval, "more_info"))
    draft.reply = Decided(
        approval_id=command.approval_id,
        status="pending",
        decision="request_more_info",
        next_step="The agent sees your question; the request stays open.",
    )


def _edit(draft: Draft, command: cmd.DecideApproval, approval: ApprovalState, replacement: Call | None) -> None:
    if replacement is None:
        draft.error = Refused("The edited call could not be evaluated.", code="edit_failed")
        return
    old_id = approval.request.proposal_id or ""
    old = draft.state.proposals[old_id]
    # The id is known before the event that names it, since the decision must name its replacement.
    proposal = calls.make_proposal(draft, replacement, old.made.reason, replaces=old_id)
    answer = _answer(draft, command, approval, "edited")
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
        decision_of_replacement=replacement.decision,
        next_step=f"The edited call is a new request: decide on {new_approval}."
        if new_approval
        else f"The policy's answer to the edited call: {replacement.decision.reason}",
    )


_ANSWERS = {"approve": _approve, "reject": _reject, "request_more_info": _ask_more, "edit": _edit}


def expire(draft: Draft, approval: ApprovalState) -> None:
    """Its time has passed; a step that asked is over, and so is the run."""
    request = approval.request
    closed = ev.ApprovalClosed(
        approval_id=request.approval_id, status="expired", reason="Nobody answered or used it in time."
    )
    draft.emit("APPROVAL_CLOSED", closed)
    if request.agent_invocation_id is None and draft.state.live:
        step = steps.step_named(draft.given.template, request.step_id)
        steps.reject_step(draft, step, "Nobody decided in time.", status="expired")


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
    facts, decision = draft.given.facts, draft.given.decision
    if facts is None or decision is None:
        draft.error = Denied("No policy was asked.", code="no_decision")
        return False
    draft.policy(facts, decision)
    if decision.verdict != "permit":
        draft.error = calls.denied(decision)
        return False
    if not draft.state.live:
        draft.refuse(command, ended(draft))
        return False
    return True


def ended(draft: Draft) -> Refused:
    """The run is over."""
    return Refused(
        f"Workflow {draft.state.workflow_id} has ended: {draft.state.status}.",
        code="workflow_ended",
        next_step="Start another workflow.",
    )
