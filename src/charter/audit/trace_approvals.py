"""The part of the trace validator that follows approvals: who was asked, who answered, and whether that was enough.

It counts anew, and apart from the decider, what the requests on record ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from charter.model import events as ev
from charter.model.approval import ApprovalRequest, Requirement
from charter.model.approval_events import UnderGrant
from charter.model.principal import person_key
from charter.model.times import later

Say = Callable[[str, str], None]


@dataclass(slots=True)
class Invocation:
    """An agent's grant for a step."""

    step_id: str
    allowed_tools: tuple[str, ...]
    expires_at: str
    forbidden_tools: tuple[str, ...] = ()
    agent: str = ""
    open: bool = True

    def allows(self, tool: str) -> bool:
        """A name, or a beginning before a final ``*``; what is forbidden outweighs what is allowed."""
        return _covers(self.allowed_tools, tool) and not _covers(self.forbidden_tools, tool)


def _covers(patterns: tuple[str, ...], tool: str) -> bool:
    return any(tool == each or (each.endswith("*") and tool.startswith(each[:-1])) for each in patterns)


@dataclass(slots=True)
class Run:
    """The run as far as calls depend on it. ``steps`` holds each step's last status, ``time`` the event's time."""

    started: bool = False
    ended: str = ""
    time: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    step_types: dict[str, str] = field(default_factory=dict)
    polled: set[str] = field(default_factory=set)
    called: dict[str, str] = field(default_factory=dict)
    invocations: dict[str, Invocation] = field(default_factory=dict)


@dataclass(slots=True)
class _Approval:
    request: ApprovalRequest
    expires_at: str
    status: str = "pending"
    approvals: list[ev.ApprovalDecided] = field(default_factory=list)
    turn: int = 0
    reminded_at: str = ""
    reminders: int = 0
    escalated: list[int] = field(default_factory=list)
    delegated: list[ev.ApprovalDelegated] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Duty:
    step_id: str
    roles: frozenset[str]
    separation: str
    distinct_from: tuple[str, ...] | None = None
    agents: bool = False


class Approvals:
    """Follows the approvals of one run. ``proposals``: the digest of each."""

    def __init__(self, run: Run, say: Say, proposals: Mapping[str, str]) -> None:
        self._run, self._say, self._proposals = run, say, proposals
        self._known: dict[str, _Approval] = {}
        self._under_grants: dict[tuple[str, str], _Duty] = {}

    def see(self, type_: str, data: Any) -> None:
        """Read one event of a type that this class follows; others are of no concern."""
        if type_ == "APPROVAL_REQUESTED":
            self.on_asked(data)
        elif type_ in _HANDLERS:
            approval = self._known.get(data.approval_id)
            if approval is None:
                told = type_.removeprefix("APPROVAL_").lower()
                self._say("approval_requested_first", f"{data.approval_id}: {told}, and it was never requested.")
            else:
                _HANDLERS[type_](self, approval, data)

    def on_asked(self, data: ev.ApprovalRequested) -> None:
        request = data.request
        if request.approval_id in self._known:
            self._say("approval_requested_first", f"{request.approval_id} is requested a second time.")
        if request.step_id not in self._run.steps:
            self._say("step_opened_first", f"People are asked in step {request.step_id}, which was never opened.")
        if self._proposals.get(request.proposal_id or "", request.digest) != request.digest:
            self._say(
                "approval_same_digest", f"{request.approval_id} is not about what {request.proposal_id} proposes."
            )
        self._known[request.approval_id] = _Approval(request, request.expires_at)

    def _check_open(self, approval: _Approval, what: str) -> None:
        if approval.status != "pending" or self._run.time >= approval.expires_at:
            told = approval.status if approval.status != "pending" else "expired"
            self._say("approval_not_closed", f"{approval.request.approval_id} is {what} when it is {told}.")

    def on_decided(self, approval: _Approval, data: ev.ApprovalDecided) -> None:
        self._check_open(approval, "decided")
        if data.digest != approval.request.digest:
            self._say("approval_same_digest", f"{data.approval_id} is decided for another digest than requested.")
        self._check_who(approval, data)
        if data.decision == "approve":
            self._check_separate(approval, data)
            approval.approvals.append(data)
        if data.status == "approved" and not _enough(approval):
            self._say("approval_quorum", f"{data.approval_id} is approved by fewer people than it asks for.")
        if data.status not in ("pending", "more_info"):
            approval.status = data.status

    def _check_who(self, approval: _Approval, data: ev.ApprovalDecided) -> None:
        request, who = approval.request, person_key(data.decided_by)
        reasoned = data.decided_by_kind == "agent" and bool(data.comment) and data.decision != "edit"
        own = {person_key(name) for name in (request.requested_by, request.owner) if name}
        if (data.decided_by_kind != "human" and not reasoned) or who == person_key(request.requested_by):
            self._say("approval_by_another_person", f"{data.decided_by} may not decide on {data.approval_id}.")
        elif data.acts_for and person_key(data.acts_for) in own:
            self._say("approval_by_another_person", f"{data.decided_by} decides on what is its own person's.")
        handed = {name for item in approval.delegated if person_key(item.delegated_to) == who for name in _givers(item)}
        if set(data.on_behalf_of) != (handed if data.decided_by_kind == "human" else set()):
            self._say("approval_handed_on", f"{data.decided_by} decides for others than those who handed it over.")
        gave_away = any(person_key(item.delegated_by) == who for item in approval.delegated)
        if gave_away and data.decision in ("approve", "edit"):
            self._say("approval_handed_on", f"{data.decided_by} approves, and had handed their part over.")

    def _check_separate(self, approval: _Approval, data: ev.ApprovalDecided) -> None:
        duty = _duty(approval.request)
        for step_id in (*self._approved_by(_behind(data), duty), *self._granted_by(_behind(data), duty)):
            self._say("approval_duties_separate", f"{data.decided_by} approves {duty.step_id} and let {step_id} pass.")

    def _approved_by(self, people: set[str], duty: _Duty) -> Iterator[str]:
        for other in self._known.values():
            apart = other.status in ("pending", "approved", "used") and _apart(duty, _duty(other.request))
            if apart and any(_behind(item) & people for item in other.approvals):
                yield other.request.step_id

    def _granted_by(self, people: set[str], duty: _Duty) -> Iterator[str]:
        for (giver, step_id), other in self._under_grants.items():
            if giver in people and _apart(duty, other):
                yield step_id

    def pass_by_grant(self, data: ev.ToolInvoke, under: UnderGrant) -> None:
        """A step's own call runs under a standing grant: who gave it has passed the step."""
        giver = person_key(under.given_by)
        duty = _Duty(data.step_id, frozenset(under.roles), under.separation)
        for step_id in (*self._approved_by({giver}, duty), *self._granted_by({giver}, duty)):
            self._say(
                "approval_duties_separate", f"The grant of {giver} covers {duty.step_id}, and they let {step_id} pass."
            )
        self._under_grants[giver, data.step_id] = duty

    def on_turn(self, approval: _Approval, data: ev.ApprovalTurn) -> None:
        self._check_open(approval, "passed on")
        turn, _ = _turns(approval)
        if not approval.request.in_sequence or data.turn != turn or data.turn <= approval.turn:
            self._say("approval_in_order", f"{data.approval_id} goes on to its part {data.turn}, which is not next.")
        approval.turn = data.turn

    def on_reminded(self, approval: _Approval, data: ev.ApprovalReminded) -> None:
        self._check_open(approval, "reminded of")
        every = approval.request.remind_after_seconds
        due = every and later(approval.reminded_at or approval.request.requested_at, every)
        if not due or self._run.time < due or data.number != approval.reminders + 1:
            self._say("approval_in_order", f"Reminder {data.number} of {data.approval_id} is not due.")
        approval.reminded_at, approval.reminders = self._run.time, data.number

    def on_escalated(self, approval: _Approval, data: ev.ApprovalEscalated) -> None:
        escalations = approval.request.escalations[len(approval.escalated) :]
        due = ""
        if escalations:
            after = escalations[0].after_seconds
            due = approval.expires_at if after is None else later(approval.request.requested_at, after)
        late = approval.status != "pending" or not due or self._run.time < due
        if late or data.number != len(approval.escalated) + 1:
            self._say("approval_in_order", f"Escalation {data.number} of {data.approval_id} is not due.")
        approval.escalated.append(len(approval.approvals))
        approval.expires_at, approval.reminded_at = data.expires_at, self._run.time

    def on_delegated(self, approval: _Approval, data: ev.ApprovalDelegated) -> None:
        self._check_open(approval, "handed on")
        request, to = approval.request, person_key(data.delegated_to)
        never = {person_key(name) for name in (request.requested_by, request.owner, data.delegated_by) if name}
        never |= {person_key(item.delegated_by) for item in approval.delegated}
        twice = any(person_key(item.delegated_by) == person_key(data.delegated_by) for item in approval.delegated)
        if to in never or twice:
            self._say("approval_handed_on", f"{data.delegated_by} hands {data.approval_id} to {data.delegated_to}.")
        approval.delegated.append(data)

    def on_closed(self, approval: _Approval, data: ev.ApprovalClosed) -> None:
        if approval.status not in ("pending", "approved"):
            self._say("approval_not_closed", f"{data.approval_id} is closed again: it is {approval.status}.")
        else:
            approval.status = data.status

    def use(self, approval_id: str, data: ev.ToolInvoke) -> None:
        """A call uses it."""
        approval = self._known.get(approval_id)
        if approval is None:
            self._say("approval_requested_first", f"{approval_id} is used and was never requested.")
            return
        if approval.status == "used":
            self._say("approval_used_once", f"{approval_id} is used a second time, by {data.effect_id}.")
        elif approval.status != "approved" or self._run.time >= approval.expires_at:
            told = approval.status if approval.status != "approved" else "expired"
            self._say("approval_not_closed", f"{approval_id} is used when it is {told}.")
        if approval.request.digest != data.digest:
            self._say("approval_same_digest", f"{approval_id} was given for another call.")
        approval.status = "used"


_HANDLERS: dict[str, Callable[[Approvals, _Approval, Any], None]] = {
    "APPROVAL_DECISION": Approvals.on_decided,
    "APPROVAL_TURN": Approvals.on_turn,
    "APPROVAL_REMINDED": Approvals.on_reminded,
    "APPROVAL_ESCALATED": Approvals.on_escalated,
    "APPROVAL_DELEGATED": Approvals.on_delegated,
    "APPROVAL_CLOSED": Approvals.on_closed,
}


# -- counting


def _givers(item: ev.ApprovalDelegated) -> tuple[str, ...]:
    return (item.delegated_by, *item.on_behalf_of)


def _one(item: ev.ApprovalDecided) -> str:
    return person_key(item.acts_for or item.decided_by)


def _behind(item: ev.ApprovalDecided) -> set[str]:
    return {_one(item), *map(person_key, (item.decided_by, *item.on_behalf_of))}


def _fits(item: Requirement, answer: ev.ApprovalDecided) -> bool:
    named = {person_key(name) for name in item.people}
    return (
        (item.role is None or item.role in answer.roles)
        and (not item.channels or answer.channel in item.channels)
        and (not named or bool(named & set(map(person_key, (answer.decided_by, *answer.on_behalf_of)))))
        and (answer.decided_by_kind == "human" or not item.people_only)
    )


def _count(item: Requirement, answers: Iterable[ev.ApprovalDecided]) -> int:
    return len({_one(answer) for answer in answers if _fits(item, answer)})


def _enough(approval: _Approval) -> bool:
    request, answers = approval.request, approval.approvals
    closing = [index for index, item in enumerate(request.escalations) if not item.earlier_may_answer]
    first = max((index for index in closing if index < len(approval.escalated)), default=None)
    for index, (item, since) in enumerate(zip(request.escalations, approval.escalated, strict=False)):
        if index >= (first or 0) and _count(item, answers[since:]) >= item.approvers:
            return True
    if first is not None or not answers:
        return False
    if request.in_sequence:
        return _turns(approval)[0] == len(request.requirements)
    if any(_count(item, answers) < item.approvers for item in request.requirements):
        return False
    return request.separation == "none" or len(request.requirements) < 2 or _spread(approval)


def _turns(approval: _Approval) -> tuple[int, int]:
    """Which part of a sequence is open, and how many have answered in it."""
    request, turn = approval.request, 0
    people: set[str] = set()
    once = request.separation != "none" and len(request.requirements) > 1
    for answer in approval.approvals:
        while turn < len(request.requirements) and _fits(request.requirements[turn], answer):
            people.add(_one(answer))
            if len(people) < request.requirements[turn].approvers:
                break
            turn, people = turn + 1, set()
            if once:
                break
    return turn, len(people)


def _spread(approval: _Approval) -> bool:
    """Hall's condition: any group of requirements has as many people who fit one of them as it asks for together."""
    needs = approval.request.requirements
    for bits in range(1, 1 << len(needs)) if len(needs) <= MOST else ():
        group = [item for index, item in enumerate(needs) if bits >> index & 1]
        people = {_one(answer) for answer in approval.approvals if any(_fits(item, answer) for item in group)}
        if len(people) < sum(item.approvers for item in group):
            return False
    return True


MOST = 12
"""More requirements than this in one request are not looked at in every combination."""


def _duty(request: ApprovalRequest) -> _Duty:
    roles = frozenset(item.role for item in request.requirements if item.role)
    agents = bool(request.agent_invocation_id)
    return _Duty(request.step_id, roles, request.separation, request.distinct_from, agents)


def _apart(one: _Duty, other: _Duty) -> bool:
    if one.step_id == other.step_id or one.agents or other.agents:
        return False
    named = [(one.distinct_from, other.step_id), (other.distinct_from, one.step_id)]
    if any(steps is not None for steps, _ in named):
        return any(step_id in steps for steps, step_id in named if steps is not None)
    apart = bool(one.roles and other.roles) and one.roles != other.roles
    return one.separation == "all" or (one.separation == "roles" and apart)
