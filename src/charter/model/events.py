"""The event vocabulary: what is on record. Each class is the ``data`` of one event type and is published as a JSON Schema.

Arguments and results appear redacted; what must not be read is sealed beside the log and referred to by ``*_ref``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, TypeAdapter

from charter.model.approval_events import (
    ApprovalClosed,
    ApprovalDecided,
    ApprovalDelegated,
    ApprovalEscalated,
    ApprovalReminded,
    ApprovalRequested,
    ApprovalTurn,
    GrantGiven,
    GrantRevoked,
    UnderGrant,
)
from charter.model.base import Json, JsonObject, Model
from charter.model.phase import ArgumentRule, GateChecked, PhaseWentBack
from charter.model.policy import Facts, Obligation, Verdict
from charter.model.principal import Principal
from charter.model.run_events import (
    ChildEnded,
    ChildStarted,
    CompensationStarted,
    ParentTold,
    WorkflowEnded,
    WorkflowHeld,
    WorkflowRetried,
)
from charter.model.signal import Signal
from charter.model.signal_events import (
    Cause,
    ScheduleFired,
    ScheduleMissed,
    ScheduleSet,
    SignalResent,
    SignalSent,
    SignalUndelivered,
)
from charter.model.tool import Risk

__all__ = [
    "ApprovalClosed",
    "ApprovalDecided",
    "ApprovalDelegated",
    "ApprovalEscalated",
    "ApprovalReminded",
    "ApprovalRequested",
    "ApprovalTurn",
    "ChildEnded",
    "ChildStarted",
    "CompensationStarted",
    "GrantGiven",
    "GrantRevoked",
    "ParentTold",
    "WorkflowEnded",
    "WorkflowHeld",
    "WorkflowRetried",
]


class WorkflowStarted(Model):
    """A run began. ``template_hash`` pins the definition, whose text is claimed under that hash."""

    template: str
    template_hash: str
    input: JsonObject
    purpose: str
    case_id: str | None = None
    owner: str = Field(description="The person whom the run serves: acts_for of an agent, else who started it.")
    started_by: str
    started_by_kind: str
    dry_run: bool = False
    caused_by: Cause | None = None
    idempotency_key: str | None = Field(default=None, description="The starter's; the same key starts nothing again.")
    started_by_roles: tuple[str, ...] = Field(
        default=(), description="The starter's roles then; children start with them."
    )
    owner_roles: tuple[str, ...] = Field(
        default=(), description="The roles of the person for whom an agent started it."
    )
    parent_workflow_id: str | None = Field(default=None, description="The run whose step started this one.")
    parent_step_id: str | None = None
    depth: int = Field(default=0, description="How many runs are above it.")
    withheld: tuple[str, ...] = Field(
        default=(),
        description="JSON pointers (* is each member) to what of the input goes into sensitive arguments; it is marked there.",
    )
    sealed_ref: str | None = Field(default=None, description="The whole input, sealed beside the log.")
    input_digest: str | None = Field(default=None, description="Salted digest of the whole input.")


class WorkflowStep(Model):
    """A step changed its state."""

    step_id: str
    step_type: str
    status: Literal[
        "opened", "completed", "failed", "skipped", "rejected", "expired", "retrying", "polling", "reopened", "review",
        "awaiting", "submitted", "returned", "again",
    ]  # fmt: skip
    output: Json = None
    until: str | None = Field(default=None, description="When Charter goes on with it by itself.")
    waits_for: str | None = Field(default=None, description="The type of signal that a wait is for.")
    polls: str | None = Field(default=None, description="The tool whose answer a wait is for.")
    timeout_at: str | None = Field(default=None, description="When the step is given up.")
    child_workflow_id: str | None = Field(default=None, description="The id of the run that this step is to start.")
    reason: str | None = None
    code: str | None = None


class StepReviewed(Model):
    """A person said how a step that failed goes on; the step's own event follows."""

    step_id: str
    resolution: Literal["retry", "skip", "supply", "fail"]
    reviewed_by: str
    reviewed_by_kind: str
    comment: str = ""


class SignalReceived(Model):
    """A signal was let in and delivered to ``woken``, and started ``started``; on the tenant's stream."""

    signal: Signal
    sent_by: str
    workflow_id: str | None = Field(default=None, description="The one run that it was sent to; None: to all.")
    woken: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    not_started: dict[str, str] = Field(
        default_factory=dict, description="Templates that it started no run of, and why."
    )


class SignalDelivered(Model):
    """A signal matched a waiting step of this run; its SIGNAL_RECEIVED has the same causation id."""

    step_id: str
    signal: Signal
    sent_by: str
    alone: bool = Field(default=False, description="It was sent to this run alone.")


class CallbackReceived(Model):
    """Another system called back, with a signature that verified, for a step that had asked for it."""

    step_id: str
    message_id: str
    body: Json = None


class AgentInvoke(Model):
    """An invocation was granted to an agent for one step, claimed by one, or ended."""

    agent_invocation_id: str
    step_id: str
    status: Literal["granted", "claimed", "ended", "expired", "revoked"]
    agent: str
    allowed_tools: tuple[str, ...] = ()
    forbidden_tools: tuple[str, ...] = ()
    argument_rules: tuple[ArgumentRule, ...] = ()
    calls: int = 0
    expires_at: str = ""


class ProposalMade(Model):
    """One exact call that an agent wants. ``salt`` is in the clear only when nothing in the arguments is sensitive."""

    proposal_id: str
    agent_invocation_id: str | None
    step_id: str
    tool: str
    definition_hash: str
    arguments: JsonObject
    digest: str
    salt: str | None = None
    sealed_ref: str | None = None
    reason: str = ""
    risk: Risk = "high"
    replaces: str | None = None
    proposed_by: Principal


class PolicyDecision(Model):
    """What the evaluator said of one request. ``call`` is the request it answered, arguments redacted."""

    action: str
    verdict: Verdict
    code: str
    reason: str
    policy_ids: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    policy_set_hash: str
    errors: tuple[str, ...] = ()
    next_step: str | None = None
    digest: str | None = None
    proposal_id: str | None = None
    approval_id: str | None = None
    facts: Facts | None = Field(default=None, description="The request, for replay under another policy set.")
    shadow: JsonObject | None = Field(default=None, description="What a candidate policy set would have decided.")


class ToolInvoke(Model):
    """The intent to run a tool: durable before the call. ``idempotent``: it may be sent again when its answer was lost,
    because its manifest says so or because it has no side effects."""

    effect_id: str
    attempt: int
    idempotency_key: str
    idempotent: bool
    proposal_id: str
    agent_invocation_id: str | None
    step_id: str
    tool: str
    definition_hash: str
    arguments: JsonObject
    digest: str
    salt: str | None = None
    sealed_ref: str | None = None
    approval_ids: tuple[str, ...] = ()
    grant_id: str | None = None
    grant_use: int | None = Field(default=None, description="Which use of a case's grant this is, from 0.")
    under_grant: UnderGrant | None = None
    instance: str
    dry_run: bool = False


class ToolResult(Model):
    """How a tool call ended. ``output`` is kept when a later step needs it; large or sensitive results are sealed."""

    effect_id: str
    attempt: int
    status: Literal["succeeded", "failed"]
    is_error: bool = False
    error_code: str | None = None
    error_message: str | None = None
    result_digest: str | None = None
    result_bytes: int = 0
    result_ref: str | None = None
    output: Json = None
    duration_us: int = 0


class EffectInDoubt(Model):
    """Nobody knows whether the tool ran; a person must find out."""

    effect_id: str
    attempt: int
    reason: str


class EffectDeadLettered(Model):
    """A message could not be delivered and is not sent again; a person may say that this is settled."""

    effect_id: str
    attempt: int
    sent: int = Field(description="How often it was sent in all.")
    code: str
    reason: str


class EffectResolved(Model):
    """A person said what became of an effect in doubt, or that a dead letter is settled."""

    effect_id: str
    resolution: Literal["ran", "did_not_run", "retry"]
    resolved_by: str
    comment: str = ""
    output: Json = None


class CommandRefused(Model):
    """A command that was not carried out, and why."""

    command: str
    code: str
    message: str
    next_step: str
    proposal_id: str | None = None
    approval_id: str | None = None
    tool: str | None = None


class ToolPinned(Model):
    """An operator accepted a tool's definition."""

    tool: str
    old_hash: str | None
    new_hash: str
    pinned_by: str


class TemplatePublished(Model):
    """This definition is what ``name@version`` means, from here on and for good; on the tenant's stream."""

    template: str = Field(description="name@version.")
    template_hash: str
    published_by: str


class SealedErased(Model):
    """Sealed content was asked to be deleted; on the tenant's stream, durable before the bytes are gone."""

    ref: str
    erased_by: str
    reason: str


class ListsRebuilt(Model):
    """The lists beside the log were made anew from it; ``differences`` were found before, at most 100 of them counted."""

    rebuilt_by: str
    reason: str
    differences: int


class KeyRotated(Model):
    """Another key signs the checkpoints from here on; both are vkeys. Both sign the first checkpoint over this event."""

    old_key: str
    new_key: str
    rotated_by: str
    reason: str


PAYLOADS: dict[str, type[Model]] = {
    "WORKFLOW_STARTED": WorkflowStarted,
    "WORKFLOW_STEP": WorkflowStep,
    "CHILD_STARTED": ChildStarted,
    "CHILD_ENDED": ChildEnded,
    "PARENT_TOLD": ParentTold,
    "STEP_REVIEWED": StepReviewed,
    "SIGNAL_RECEIVED": SignalReceived,
    "SIGNAL_DELIVERED": SignalDelivered,
    "CALLBACK_RECEIVED": CallbackReceived,
    "SIGNAL_SENT": SignalSent,
    "SIGNAL_UNDELIVERED": SignalUndelivered,
    "SIGNAL_RESENT": SignalResent,
    "SCHEDULE_SET": ScheduleSet,
    "SCHEDULE_FIRED": ScheduleFired,
    "SCHEDULE_MISSED": ScheduleMissed,
    "AGENT_INVOKE": AgentInvoke,
    "GATE_CHECKED": GateChecked,
    "PHASE_WENT_BACK": PhaseWentBack,
    "PROPOSAL_MADE": ProposalMade,
    "POLICY_DECISION": PolicyDecision,
    "APPROVAL_REQUESTED": ApprovalRequested,
    "APPROVAL_DECISION": ApprovalDecided,
    "APPROVAL_TURN": ApprovalTurn,
    "APPROVAL_REMINDED": ApprovalReminded,
    "APPROVAL_ESCALATED": ApprovalEscalated,
    "APPROVAL_DELEGATED": ApprovalDelegated,
    "APPROVAL_CLOSED": ApprovalClosed,
    "GRANT_GIVEN": GrantGiven,
    "GRANT_REVOKED": GrantRevoked,
    "TOOL_INVOKE": ToolInvoke,
    "TOOL_RESULT": ToolResult,
    "EFFECT_IN_DOUBT": EffectInDoubt,
    "EFFECT_DEAD_LETTERED": EffectDeadLettered,
    "EFFECT_RESOLVED": EffectResolved,
    "COMMAND_REFUSED": CommandRefused,
    "WORKFLOW_COMPLETED": WorkflowEnded,
    "WORKFLOW_FAILED": WorkflowEnded,
    "WORKFLOW_CANCELLED": WorkflowEnded,
    "WORKFLOW_REJECTED": WorkflowEnded,
    "COMPENSATION_STARTED": CompensationStarted,
    "WORKFLOW_RETRIED": WorkflowRetried,
    "WORKFLOW_PAUSED": WorkflowHeld,
    "WORKFLOW_RESUMED": WorkflowHeld,
    "TOOL_PINNED": ToolPinned,
    "TEMPLATE_PUBLISHED": TemplatePublished,
    "SEALED_ERASED": SealedErased,
    "LISTS_REBUILT": ListsRebuilt,
    "KEY_ROTATED": KeyRotated,
}

ENDINGS = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED", "WORKFLOW_REJECTED")

_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(model) for name, model in PAYLOADS.items()}


class Event(Model):
    """An event as the decider makes it and the fold reads it: its type, when, and its payload."""

    type: str
    time: str
    data: Any


def parse_payload(event_type: str, data: dict[str, Any]) -> Model:
    """The payload of a stored event. Raises ``KeyError`` for an unknown type, pydantic's ValidationError for a bad one."""
    payload: Model = _ADAPTERS[event_type].validate_python(data)
    return payload
