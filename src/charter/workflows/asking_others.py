"""While a request waits: reminders, the next in a sequence, escalation to others, delegation, and the end of its time."""

from __future__ import annotations

from charter.errors import CharterError, Denied, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval import Requirement
from charter.model.principal import Principal, could_be_id, person_key
from charter.model.reply import Decided
from charter.model.times import later
from charter.workflows import quorum, verdicts
from charter.workflows.approval_state import ApprovalState
from charter.workflows.draft import Draft


def look(draft: Draft, approval: ApprovalState) -> None:
    """Do what has become due for this request, each once, however late: escalate, let it expire, remind."""
    approval_id, now = approval.request.approval_id, draft.given.now
    while approval.open and (timer := approval.timer) is not None and now >= timer and draft.state.live:
        escalation = approval.next_escalation
        if escalation is not None and now >= escalation[0]:
            _escalate(draft, approval)
        elif now >= approval.expires_at:
            expire(draft, approval)
        else:
            _remind(draft, approval)
        approval = draft.state.approvals[approval_id]


def expire(draft: Draft, approval: ApprovalState) -> None:
    """Its time has passed; for a step that asked, what its template says follows."""
    closed = ev.ApprovalClosed(
        approval_id=approval.request.approval_id, status="expired", reason="Nobody answered or used it in time."
    )
    draft.emit("APPROVAL_CLOSED", closed)
    verdicts.expired(draft, approval)


def _remind(draft: Draft, approval: ApprovalState) -> None:
    needed = quorum.standing(approval).asked_now
    number, approval_id = approval.reminders + 1, approval.request.approval_id
    draft.emit("APPROVAL_REMINDED", ev.ApprovalReminded(approval_id=approval_id, number=number, still_needed=needed))


def _escalate(draft: Draft, approval: ApprovalState) -> None:
    item = approval.request.escalations[approval.escalated]
    at_end = item.after_seconds is None
    draft.emit(
        "APPROVAL_ESCALATED",
        ev.ApprovalEscalated(
            approval_id=approval.request.approval_id,
            number=approval.escalated + 1,
            asked=(quorum.asked_of(item),),
            earlier_may_answer=item.earlier_may_answer,
            expires_at=later(draft.given.now, item.expires_after_seconds) if at_end else approval.expires_at,
        ),
    )


def next_turn(draft: Draft, approval: ApprovalState) -> None:
    """In a sequence: ask the next when the ones before have agreed."""
    request = approval.request
    turn = quorum.turn_of(approval) if request.in_sequence else 0
    if turn > approval.turn:
        asked = request.requirements[turn : turn + 1]
        draft.emit("APPROVAL_TURN", ev.ApprovalTurn(approval_id=request.approval_id, turn=turn, asked=asked))


def comes_later(approval: ApprovalState, answer: ev.ApprovalDecided) -> bool:
    """True for who counts nowhere now, and will when the ones before have answered, or have not."""
    request = approval.request
    if any(quorum.fits(item, answer) for item in quorum.standing(approval).asked_now):
        return False
    after: tuple[Requirement, ...] = request.requirements[approval.turn + 1 :] if request.in_sequence else ()
    return any(quorum.fits(item, answer) for item in (*after, *request.escalations[approval.escalated :]))


def no_longer_asked(approval: ApprovalState, answer: ev.ApprovalDecided) -> bool:
    """True for those who were asked first, when it was escalated in their place."""
    stands = quorum.standing(approval)
    mine = any(quorum.fits(item, answer) for item in approval.request.requirements)
    return mine and not stands.left and not any(quorum.fits(item, answer) for item in stands.instead)


# -- delegation


def part_of(approval: ApprovalState, caller: Principal) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """For whom the caller stands in here, and with which roles: their own and those of whoever handed their part over."""
    handed = [item for item in approval.delegations if person_key(item.delegated_to) == person_key(caller.id)]
    handed = handed if caller.kind == "human" else []
    names = [name for item in handed for name in (item.delegated_by, *item.on_behalf_of)]
    roles = [*caller.roles, *(role for item in handed for role in item.roles)]
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(roles))


def no_delegate(approval: ApprovalState, part: ev.ApprovalDecided, to: str) -> CharterError | None:
    """Why this part cannot be handed to this person. ``part`` is what the caller's own approval would be."""
    request, wanted = approval.request, person_key(to)
    if not could_be_id(to):
        return Refused(
            "No credential can be of such a name, so nobody could take the part on.",
            code="no_such_person",
            next_step="Give the person's id as it stands in their token, without spaces.",
        )
    if not any(quorum.fits(item, part) for item in quorum.standing(approval).asked_now):
        return Refused(
            "You have no part in this decision that you could hand over.",
            code="no_part",
            next_step="The request shows who is asked.",
        )
    if wanted in {person_key(name) for name in (request.requested_by, request.owner) if name}:
        return Denied(
            "A part in a decision is not handed to whom the action belongs.",
            code="own_action",
            next_step="Name somebody else.",
        )
    if wanted in quorum.behind(part) or any(person_key(item.delegated_by) == wanted for item in approval.delegations):
        return Refused(
            f"{to} handed this part on, or is you: it does not go round in a circle.",
            code="delegation_circle",
            next_step="Name somebody else.",
        )
    if any(wanted in quorum.behind(item) and item.decision == "approve" for item in approval.decisions):
        return Refused(f"{to} has approved this already.", code="already_decided_by_them", next_step="Name another.")
    return None


def hand_over(draft: Draft, command: cmd.DelegateApproval, approval: ApprovalState) -> None:
    """Put the delegation on record."""
    person = draft.given.principal
    behind, roles = part_of(approval, person)
    draft.emit(
        "APPROVAL_DELEGATED",
        ev.ApprovalDelegated(
            approval_id=command.approval_id,
            delegated_by=person.id,
            delegated_to=command.to,
            roles=roles,
            on_behalf_of=behind,
            channel=command.channel,
            comment=command.comment,
        ),
    )
    stands = quorum.standing(approval)
    draft.reply = Decided(
        approval_id=command.approval_id,
        status="pending",
        decision="delegate",
        still_needed=stands.left,
        or_instead=stands.instead,
        next_step=f"{command.to} decides in your place, with a credential of their own.",
    )
