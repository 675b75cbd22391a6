"""What leaves: the signal that an event of the log is to the outside. The event's row is the outbox.

A function of the event and of how its run began, so the same event gives the same signal whenever and by whomever it is
read; its id is the event's. It holds ids, names, codes and reasons; arguments, inputs and outputs stay inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from charter.model.base import JsonObject
from charter.model.signal import OWN_SOURCE, Signal

_RUN: Final = ("status", "code", "reason", "by")
_STEP: Final = ("step_id", "step_type", "status", "code", "reason", "until", "timeout_at")
_ASKED: Final = ("approval_id", "step_id", "tool", "risk", "requested_by", "expires_at")
_DECIDED: Final = ("approval_id", "decision", "status", "decided_by", "decided_by_kind", "channel")

LIFECYCLE: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "WORKFLOW_STARTED": ("workflow.run.started", ()),
    "WORKFLOW_STEP": ("workflow.step.{status}", _STEP),
    "WORKFLOW_PAUSED": ("workflow.run.paused", _RUN),
    "WORKFLOW_RESUMED": ("workflow.run.resumed", _RUN),
    "WORKFLOW_COMPLETED": ("workflow.run.completed", _RUN),
    "WORKFLOW_FAILED": ("workflow.run.failed", _RUN),
    "WORKFLOW_REJECTED": ("workflow.run.rejected", _RUN),
    "WORKFLOW_CANCELLED": ("workflow.run.cancelled", _RUN),
    "APPROVAL_REQUESTED": ("approval.requested", _ASKED),
    "APPROVAL_DECISION": ("approval.decided", _DECIDED),
    "APPROVAL_TURN": ("approval.turn", ("approval_id", "turn", "asked")),
    "APPROVAL_REMINDED": ("approval.reminded", ("approval_id", "number", "still_needed")),
    "APPROVAL_ESCALATED": ("approval.escalated", ("approval_id", "number", "asked", "expires_at")),
    "APPROVAL_DELEGATED": ("approval.delegated", ("approval_id", "delegated_by", "delegated_to", "channel")),
    "APPROVAL_CLOSED": ("approval.closed", ("approval_id", "status", "reason")),
    "EFFECT_IN_DOUBT": ("workflow.effect.in_doubt", ("effect_id", "reason")),
}
"""The events that the outside is told of: the signal's type, and the members of the event that go with it."""
SENT: Final = "SIGNAL_SENT"
TYPES: Final = (*LIFECYCLE, SENT)


@dataclass(frozen=True, slots=True)
class Origin:
    """How a run began, as its first event says."""

    template: str
    case_id: str | None
    correlation_id: str
    depth: int
    dry_run: bool


def origin_of(envelope: Mapping[str, Any]) -> Origin:
    """From the JSON of a run's ``WORKFLOW_STARTED``. What a signal started belongs with what that signal belongs with."""
    data = envelope["data"]
    cause = data.get("caused_by") or {}
    return Origin(
        template=data["template"],
        case_id=data.get("case_id"),
        correlation_id=cause.get("correlation_id") or envelope["stream"],
        depth=cause.get("depth", 0),
        dry_run=data.get("dry_run", False),
    )


def source_of(tenant: str, workflow_id: str) -> str:
    """The source of a run's signals."""
    return f"{OWN_SOURCE}{tenant}:{workflow_id}"


def outgoing(envelope: Mapping[str, Any], origin: Origin) -> Signal:
    """The signal of an event whose type is one of ``TYPES``; ``envelope`` is its leaf, as JSON."""
    data, workflow_id = envelope["data"], envelope["stream"]
    if envelope["type"] == SENT:
        type_, subject, content = data["type"], data.get("subject"), data.get("data")
    else:
        pattern, members = LIFECYCLE[envelope["type"]]
        shown = data.get("request", data)
        type_ = pattern.format(status=data.get("status"))
        subject, content = workflow_id, _content(shown, members, workflow_id, origin)
    return Signal(
        id=envelope["id"],
        source=source_of(envelope["tenant"], workflow_id),
        type=type_,
        subject=subject,
        time=envelope["time"],
        data=content,
        correlation_id=origin.correlation_id,
        causation_id=envelope["causation_id"],
        depth=origin.depth,
    )


def _content(shown: Mapping[str, Any], members: tuple[str, ...], workflow_id: str, origin: Origin) -> JsonObject:
    out: JsonObject = {"workflow_id": workflow_id, "template": origin.template}
    if origin.case_id is not None:
        out["case_id"] = origin.case_id
    if origin.dry_run:
        out["dry_run"] = True
    return out | {name: shown[name] for name in members if shown.get(name) is not None}


def wanted(type_: str, patterns: tuple[str, ...]) -> bool:
    """True when one of the patterns covers the type: the same, or its beginning before a ``*`` at the end. None: all."""
    return not patterns or any(
        type_.startswith(each[:-1]) if each.endswith("*") else type_ == each for each in patterns
    )
