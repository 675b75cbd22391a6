"""How one request for approval stands, folded from its events; and when Charter must look at it again by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from charter.model import events as ev
from charter.model.approval import ApprovalRequest, Escalation
from charter.model.times import later
from charter.workflows import machine

MAX_REMINDERS = 100
"""After so many nobody is reminded any more: a request that lives for years must not fill the log."""


@dataclass(frozen=True, slots=True)
class ApprovalState:
    """A request and how it stands. ``turn``: which requirement of a sequence is asked; ``answered_before``: how many answers
    there were at each escalation, because those to whom it was escalated answer after it."""

    request: ApprovalRequest
    status: str
    decisions: tuple[ev.ApprovalDecided, ...] = ()
    used_by: str | None = None
    turn: int = 0
    reminders: int = 0
    reminded_at: str | None = None
    answered_before: tuple[int, ...] = ()
    prolonged_to: str | None = None
    delegations: tuple[ev.ApprovalDelegated, ...] = ()

    @property
    def open(self) -> bool:
        """It waits for people, or for the one call that they approved. A step's question is over when it is answered."""
        return self.status == "pending" or (self.status == "approved" and self.request.proposal_id is not None)

    @property
    def escalated(self) -> int:
        """How often it was escalated."""
        return len(self.answered_before)

    @property
    def expires_at(self) -> str:
        """When it is over: its own time, or the time that those have to whom it was escalated."""
        return self.prolonged_to or self.request.expires_at

    @property
    def next_reminder(self) -> str | None:
        """When people are to be reminded, counted from the last time, or from when others were asked."""
        every = self.request.remind_after_seconds
        if every is None or self.status != "pending" or self.reminders >= MAX_REMINDERS:
            return None
        at = later(self.reminded_at or self.request.requested_at, every)
        return at if at < self.expires_at else None

    @property
    def next_escalation(self) -> tuple[str, Escalation] | None:
        """When others are to be asked, and who: at its time after the request, or when the request's time is over."""
        if self.status != "pending" or self.escalated >= len(self.request.escalations):
            return None
        item = self.request.escalations[self.escalated]
        after = item.after_seconds
        return (self.expires_at if after is None else later(self.request.requested_at, after)), item

    @property
    def timer(self) -> str | None:
        """When Charter must look at it, if it is open."""
        if not self.open:
            return None
        escalation = self.next_escalation
        times = (self.expires_at, self.next_reminder, escalation[0] if escalation else None)
        return min(time for time in times if time is not None)

    def after(self, data: Any, time: str) -> ApprovalState:
        """The state after one more of its events. Raises ``KeyError`` when the tables do not allow it."""
        return _AFTER[type(data)](self, data, time)


def _decided(before: ApprovalState, data: ev.ApprovalDecided, _time: str) -> ApprovalState:
    status = machine.APPROVAL[(before.status, data.status)]
    return replace(before, status=status, decisions=(*before.decisions, data))


def _closed(before: ApprovalState, data: ev.ApprovalClosed, _time: str) -> ApprovalState:
    return replace(before, status=machine.APPROVAL[(before.status, data.status)])


def _in_order(before: ApprovalState, what: str, expected: int, found: int) -> None:
    machine.APPROVAL[(before.status, what)]
    if expected != found:
        raise KeyError((what, found))


def _turn(before: ApprovalState, data: ev.ApprovalTurn, _time: str) -> ApprovalState:
    machine.APPROVAL[(before.status, "turn")]
    if data.turn <= before.turn:
        raise KeyError(("turn", data.turn))
    return replace(before, turn=data.turn)


def _reminded(before: ApprovalState, data: ev.ApprovalReminded, time: str) -> ApprovalState:
    _in_order(before, "reminded", before.reminders + 1, data.number)
    return replace(before, reminders=data.number, reminded_at=time)


def _escalated(before: ApprovalState, data: ev.ApprovalEscalated, time: str) -> ApprovalState:
    _in_order(before, "escalated", before.escalated + 1, data.number)
    prolonged = data.expires_at if data.expires_at != before.expires_at else before.prolonged_to
    answered = (*before.answered_before, len(before.decisions))
    # Those who are asked now are reminded so long after it.
    return replace(before, answered_before=answered, prolonged_to=prolonged, reminded_at=time)


def _delegated(before: ApprovalState, data: ev.ApprovalDelegated, _time: str) -> ApprovalState:
    machine.APPROVAL[(before.status, "delegated")]
    if any(item.delegated_by == data.delegated_by for item in before.delegations):
        raise KeyError(("delegated", data.delegated_by))
    return replace(before, delegations=(*before.delegations, data))


_AFTER: dict[type, Callable[[ApprovalState, Any, str], ApprovalState]] = {
    ev.ApprovalDecided: _decided,
    ev.ApprovalClosed: _closed,
    ev.ApprovalTurn: _turn,
    ev.ApprovalReminded: _reminded,
    ev.ApprovalEscalated: _escalated,
    ev.ApprovalDelegated: _delegated,
}
