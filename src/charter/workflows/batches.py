"""Several proposals that are to run side by side: all of them may run now, or none of them does."""

from __future__ import annotations

from charter.errors import CharterError, Refused
from charter.model.policy import Decision
from charter.workflows import steps
from charter.workflows.calls import decision_on, denied, next_step, spent
from charter.workflows.draft import Draft, Member
from charter.workflows.state import ProposalState, State

_NAMED = 5


def check(draft: Draft) -> None:
    """Refuse the batch, on record, when any member may not run now; nothing is on record when all may.

    The reply is the members' tools. Each member's own command decides again when its turn comes.
    """
    if draft.state.status == "paused":
        draft.refuse("invoke_batch", steps.paused())
        return
    members = draft.given.members
    problems = [(index, item, problem) for index, item in enumerate(members) if (problem := _problem(draft, item))]
    if problems:
        for _, member, _ in problems:
            _decided(draft, member)
        draft.refuse("invoke_batch", _refusal(problems, len(members)))
        return
    draft.reply = tuple(member.call.manifest.name for member in members if member.call is not None)


def _problem(draft: Draft, member: Member) -> CharterError | None:
    if member.call is None:
        return member.problem
    return not_ready(draft.state, draft.state.proposals[member.proposal_id], member.call.decision)


def not_ready(state: State, proposal: ProposalState, decision: Decision) -> CharterError | None:
    """Why this proposal would not run now, as its own call would be answered; None when it would."""
    refusal = spent(state, proposal)
    if refusal is not None:
        return refusal
    if decision.verdict == "permit":
        return None
    if decision.verdict == "deny":
        return denied(decision)
    approval = state.approvals.get(proposal.approval_id or "")
    return Refused(
        f"Nothing has run: {decision.reason}",
        code="approval_required",
        next_step=next_step(decision, approval, proposal.made.proposal_id),
    )


def _decided(draft: Draft, member: Member) -> None:
    """What the policy said of a member that it does not let run is on record as for a call of its own."""
    if member.call is not None and member.call.decision.verdict != "permit":
        decision_on(draft, member.call, draft.state.proposals[member.proposal_id].made)


def _refusal(problems: list[tuple[int, Member, CharterError]], asked: int) -> Refused:
    named = [f"{member.proposal_id} ({problem.error_code})" for _, member, problem in problems[:_NAMED]]
    more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return Refused(
        f"This request has run nothing: of its {asked} proposals these may not run now: {', '.join(named)}{more}.",
        code="batch_not_ready",
        next_step="Do for each what detail.members says, then send the batch again; or send it without them.",
        detail={
            "members": [
                {"index": index, "proposal_id": member.proposal_id, **_told(problem)}
                for index, member, problem in problems
            ]
        },
    )


def _told(problem: CharterError) -> dict[str, str]:
    return {"code": problem.error_code, "message": problem.message, "next_step": problem.next_step}
