"""Who counts: requirements, the answers that meet them, sequences, escalations, and duties that must stay separate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from charter.model import events as ev
from charter.model.approval import ApprovalRequest, Escalation, Requirement, Separation
from charter.model.policy import Decision
from charter.model.principal import person_key
from charter.workflows.approval_state import ApprovalState
from charter.workflows.state import State


def counted_as(decision: ev.ApprovalDecided) -> str:
    """Whom an answer counts for: the person themselves; an agent and the person whom it serves are one."""
    return person_key(decision.acts_for or decision.decided_by)


def behind(decision: ev.ApprovalDecided) -> set[str]:
    """Everybody who had a part in an answer: who gave it, and who handed their part over."""
    return {counted_as(decision), person_key(decision.decided_by), *map(person_key, decision.on_behalf_of)}


def fits(item: Requirement, decision: ev.ApprovalDecided) -> bool:
    """Whether this answer counts for this requirement."""
    if decision.decision != "approve" or (item.people_only and decision.decided_by_kind != "human"):
        return False
    if item.channels and decision.channel not in item.channels:
        return False
    stands_for = {person_key(name) for name in (decision.decided_by, *decision.on_behalf_of)}
    named = not item.people or any(person_key(name) in stands_for for name in item.people)
    return named and (item.role is None or item.role in decision.roles)


def still_needed(
    requirements: tuple[Requirement, ...],
    decisions: tuple[ev.ApprovalDecided, ...],
    *,
    one_part_each: bool = False,
    in_sequence: bool = False,
) -> tuple[Requirement, ...]:
    """The requirements that these approvals do not meet yet, with the number of people still missing.

    Each person counts once a requirement. Without ``one_part_each`` every requirement is counted for itself: one person who
    holds both roles counts for both, since both policies say so. With it each person counts in one requirement only, in
    whichever serves best. In a sequence an approval counts for the requirement whose turn it was.
    """
    if in_sequence:
        counts = _in_turn(requirements, decisions, one_part_each)
    elif one_part_each:
        counts = _matched(requirements, decisions)
    else:
        counts = [len({counted_as(each) for each in decisions if fits(item, each)}) for item in requirements]
    return tuple(
        item.model_copy(update={"approvers": item.approvers - count})
        for item, count in zip(requirements, counts, strict=True)
        if count < item.approvers
    )


def _in_turn(
    requirements: Sequence[Requirement], decisions: Iterable[ev.ApprovalDecided], one_part_each: bool
) -> list[int]:
    people: list[set[str]] = [set() for _ in requirements]
    turn = 0
    for decision in decisions:
        while turn < len(requirements) and fits(requirements[turn], decision):
            people[turn].add(counted_as(decision))
            if len(people[turn]) < requirements[turn].approvers:
                break
            turn += 1
            if one_part_each:
                break
    return [len(found) for found in people]


def _matched(requirements: Sequence[Requirement], decisions: Iterable[ev.ApprovalDecided]) -> list[int]:
    """As many people as can be placed, each in one requirement: a matching, so that the order of answers does not matter."""
    may: dict[str, set[int]] = {}
    for decision in decisions:
        found = {index for index, item in enumerate(requirements) if fits(item, decision)}
        may.setdefault(counted_as(decision), set()).update(found)
    placed: list[list[str]] = [[] for _ in requirements]

    def place(person: str, tried: set[int]) -> bool:
        for index in sorted(may[person] - tried):
            tried.add(index)
            if len(placed[index]) < requirements[index].approvers:
                placed[index].append(person)
                return True
            for number, other in enumerate(placed[index]):
                if place(other, tried):
                    placed[index][number] = person
                    return True
        return False

    for person in may:
        place(person, set())
    return [len(found) for found in placed]


@dataclass(frozen=True, slots=True)
class Standing:
    """``left``: what those who were asked first still owe, empty when they no longer count; ``instead``: what those to whom it
    was escalated owe, each enough by itself. ``met``: nothing is missing."""

    met: bool
    left: tuple[Requirement, ...] = ()
    instead: tuple[Requirement, ...] = ()
    in_sequence: bool = False

    @property
    def asked_now(self) -> tuple[Requirement, ...]:
        """Everything that would bring it forward now."""
        return (*(self.left[:1] if self.in_sequence else self.left), *self.instead)


def one_part_each(request: ApprovalRequest) -> bool:
    """Whether a person counts in one requirement only."""
    return request.separation != "none" and len(request.requirements) > 1


def standing(approval: ApprovalState, decisions: tuple[ev.ApprovalDecided, ...] | None = None) -> Standing:
    """How a request stands, with these answers in place of those that it has."""
    request, answers = approval.request, approval.decisions if decisions is None else decisions
    escalations = request.escalations[: approval.escalated]
    first = max((index for index, item in enumerate(escalations) if not item.earlier_may_answer), default=None)
    left: tuple[Requirement, ...] = ()
    if first is None:
        left = still_needed(
            request.requirements,
            answers,
            one_part_each=one_part_each(request),
            in_sequence=request.in_sequence,
        )
        if not left and request.requirements:
            return Standing(met=True)
    instead: list[Requirement] = []
    for index in range(first or 0, len(escalations)):
        missing = still_needed((asked_of(escalations[index]),), answers[approval.answered_before[index] :])
        if not missing:
            return Standing(met=True)
        instead += missing
    return Standing(False, left, tuple(instead), request.in_sequence)


def asked_of(escalation: Escalation) -> Requirement:
    """Who is asked by an escalation, without when."""
    return Requirement.model_validate({name: getattr(escalation, name) for name in Requirement.model_fields})


def turn_of(approval: ApprovalState) -> int:
    """Which requirement of a sequence is asked now."""
    request = approval.request
    left = still_needed(
        request.requirements, approval.decisions, one_part_each=one_part_each(request), in_sequence=True
    )
    return len(request.requirements) - len(left)


@dataclass(frozen=True, slots=True)
class Duty:
    """What passing a step is, as far as it must be kept apart from passing another one."""

    step_id: str
    roles: frozenset[str]
    separation: Separation
    distinct_from: tuple[str, ...] | None = None


def duty_of(request: ApprovalRequest) -> Duty | None:
    """Of a step's question, or of the workflow's own call. Calls of agents are no steps that are meant for anybody: the
    policy says who decides on each."""
    if request.agent_invocation_id:
        return None
    return Duty(request.step_id, roles_asked(request.requirements), request.separation, request.distinct_from)


def passed_elsewhere(state: State, approval: ApprovalState, people: set[str]) -> str | None:
    """The other step that one of these people let pass, where the same person may not pass both: by a part in approving it,
    or by a standing grant of theirs."""
    duty = duty_of(approval.request)
    if duty is None:
        return None
    for other in state.approvals.values():
        if other.status not in ("pending", "approved", "used") or not separate(duty, duty_of(other.request)):
            continue
        if any(item.decision == "approve" and behind(item) & people for item in other.decisions):
            return other.request.step_id
    for item in state.passed:
        granted = Duty(item.step_id, frozenset(item.under.roles), item.under.separation)
        if person_key(item.under.given_by) in people and separate(duty, granted):
            return item.step_id
    return None


def separate(one: Duty, other: Duty | None) -> bool:
    """Whether one person may not pass both: as a step says of the other, else by the template's rule."""
    if other is None or one.step_id == other.step_id:
        return False
    if one.distinct_from is not None or other.distinct_from is not None:
        return other.step_id in (one.distinct_from or ()) or one.step_id in (other.distinct_from or ())
    apart = bool(one.roles and other.roles) and one.roles != other.roles
    return one.separation == "all" or (one.separation == "roles" and apart)


def roles_asked(requirements: Iterable[Requirement]) -> frozenset[str]:
    """The roles for which they are meant."""
    return frozenset(item.role for item in requirements if item.role)


def requirements_of(decision: Decision) -> tuple[Requirement, ...]:
    """What people the decision asks for."""
    return tuple(
        Requirement(
            role=item.role,
            people=item.people,
            approvers=item.approvers,
            channels=item.channels,
            people_only=not item.agents,
            policy_id=item.policy_id,
        )
        for item in decision.obligations
        if item.name == "require_approval"
    )


# -- in words


def who(requirements: tuple[Requirement, ...], between: str = " and ") -> str:
    """The requirements in words: ``2 people with role finance (by cli, console)``."""
    parts = []
    for item in requirements:
        people = "1 person" if item.approvers == 1 else f"{item.approvers} people"
        role = f" with role {item.role}" if item.role else ""
        among = f" of {', '.join(item.people)}" if item.people else ""
        channels = f" (by {', '.join(item.channels)})" if item.channels else ""
        parts.append(f"{people}{role}{among}{channels}")
    return between.join(parts) or "a person"


def whom(stands: Standing) -> str:
    """Who is still needed, in words."""
    ways = [who(stands.left, ", then " if stands.in_sequence else " and ")] if stands.left else []
    ways += [who((item,)) for item in stands.instead]
    return " or instead ".join(ways) or "a person"
