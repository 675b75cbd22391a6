"""What anybody may ask of a workflow. Each command passes ``Gate.handle`` and nothing else changes anything.

The caller's principal travels beside the command, never inside it. A command names what the caller sent, unchecked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from charter.model.approval import ApprovalVerdict, GrantBounds, Signature
from charter.model.base import FreeLine, Id, Json, JsonObject, LongText, Model, ShortText
from charter.model.effect import EffectOutcome
from charter.model.principal import Channel
from charter.model.signal import Signal


def _once_each(ids: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(ids)) < len(ids):
        raise ValueError("a proposal stands here twice, and runs once")
    return ids


class StartWorkflow(Model):
    """Start a run of ``template`` (``name`` for the newest version, or ``name@version``)."""

    kind: Literal["start_workflow"] = "start_workflow"
    template: ShortText
    input: JsonObject = Field(default_factory=dict)
    purpose: FreeLine
    case_id: ShortText | None = None
    idempotency_key: ShortText | None = None
    dry_run: bool = False


class ProposeAction(Model):
    """Ask what the policy says of one exact call, without running it."""

    kind: Literal["propose_action"] = "propose_action"
    workflow_id: Id | None
    agent_invocation_id: Id | None
    tool: ShortText
    arguments: JsonObject
    reason: LongText = ""


class RequestApproval(Model):
    """Ask people to decide on a proposal."""

    kind: Literal["request_approval"] = "request_approval"
    workflow_id: Id | None
    agent_invocation_id: Id | None
    proposal_id: Id


class InvokeTool(Model):
    """Run a proposal, or a tool with arguments. Both given must agree."""

    kind: Literal["invoke_tool"] = "invoke_tool"
    workflow_id: Id | None
    agent_invocation_id: Id | None
    proposal_id: Id | None = None
    tool: ShortText | None = None
    arguments: JsonObject | None = None
    reason: LongText = ""


BATCH = 20
"""The most proposals that run in one batch."""


class InvokeBatch(Model):
    """Run proposals of one invocation side by side; none of them unless all are approved or permitted now."""

    kind: Literal["invoke_batch"] = "invoke_batch"
    workflow_id: Id | None
    agent_invocation_id: Id | None
    proposal_ids: Annotated[tuple[Id, ...], Field(min_length=1, max_length=BATCH), AfterValidator(_once_each)]


class RecordOutcome(Model):
    """The runner's answer to an effect; only Charter itself sends it."""

    kind: Literal["record_outcome"] = "record_outcome"
    workflow_id: Id
    effect_id: Id
    attempt: int
    outcome: EffectOutcome


class DecideApproval(Model):
    """An answer to an approval. ``edited_arguments`` go with ``edit``: a call's, or what a step shows.

    From an agent ``comment`` is its reasoning, without which nothing is taken.
    """

    kind: Literal["decide_approval"] = "decide_approval"
    approval_id: Id
    decision: ApprovalVerdict
    channel: Channel
    digest: str | None = Field(default=None, description="What the person saw; refused when it is not the approval's.")
    comment: LongText | None = None
    edited_arguments: JsonObject | None = None
    signature: Signature | None = None


class DelegateApproval(Model):
    """Hand one's part in a decision to another person of the tenant."""

    kind: Literal["delegate_approval"] = "delegate_approval"
    approval_id: str
    to: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    channel: Channel
    digest: str | None = Field(default=None, description="What the person saw; refused when it is not the approval's.")
    comment: LongText | None = None


class GiveGrant(Model):
    """A person's standing permission for calls within bounds."""

    kind: Literal["give_grant"] = "give_grant"
    workflow_id: Id
    bounds: GrantBounds
    channel: Channel
    comment: LongText | None = None


class RevokeGrant(Model):
    """Take a standing grant back."""

    kind: Literal["revoke_grant"] = "revoke_grant"
    workflow_id: Id
    grant_id: Id
    comment: LongText | None = None


class CompleteStep(Model):
    """The agent says its step is done and hands over the output."""

    kind: Literal["complete_step"] = "complete_step"
    workflow_id: Id | None
    agent_invocation_id: Id | None
    output: Json = None
    summary: LongText = ""


class CancelWorkflow(Model):
    """End a run without its result."""

    kind: Literal["cancel_workflow"] = "cancel_workflow"
    workflow_id: Id
    reason: LongText = ""


class PauseWorkflow(Model):
    """Open no step and run no new call until it is resumed; answers and outcomes still go on record."""

    kind: Literal["pause_workflow"] = "pause_workflow"
    workflow_id: Id
    reason: LongText = ""


class ResumeWorkflow(Model):
    """Go on with a paused run; what became due meanwhile is due now."""

    kind: Literal["resume_workflow"] = "resume_workflow"
    workflow_id: Id
    reason: LongText = ""


class RetryWorkflow(Model):
    """Have a failed run go on from the steps that failed."""

    kind: Literal["retry_workflow"] = "retry_workflow"
    workflow_id: str
    reason: LongText = ""


class AdvanceWorkflow(Model):
    """Do what is due: expire what has expired, tell which steps are ready. The engine sends it.

    ``run_steps``, which is taken from the engine alone: also run the calls of those that are ready, and of those that get ready
    by their outcomes.
    """

    kind: Literal["advance_workflow"] = "advance_workflow"
    workflow_id: Id
    run_steps: bool = False


class RunStep(Model):
    """Run the tool call of an open ``action`` step; only the engine sends it."""

    kind: Literal["run_step"] = "run_step"
    workflow_id: Id
    step_id: Id


class RecoverEffect(Model):
    """The process that ran this effect is gone: retry it if it is idempotent, else it is in doubt."""

    kind: Literal["recover_effect"] = "recover_effect"
    workflow_id: Id
    effect_id: Id
    dead_instance: str


class ResolveEffect(Model):
    """A person found out what became of an effect in doubt: it ran, it did not run, or run it again."""

    kind: Literal["resolve_effect"] = "resolve_effect"
    workflow_id: Id
    effect_id: Id
    resolution: Literal["ran", "did_not_run", "retry"]
    comment: LongText = ""
    output: Json = None


class ReviewStep(Model):
    """A person's word on a step that waits for review: once more, without it, with this ``output``, or the run fails."""

    kind: Literal["review_step"] = "review_step"
    workflow_id: Id
    step_id: Id
    resolution: Literal["retry", "skip", "supply", "fail"]
    comment: LongText = ""
    output: Json = None


class SendSignal(Model):
    """A signal for the runs of the tenant that wait for it, or for the one of ``workflow_id`` alone."""

    kind: Literal["send_signal"] = "send_signal"
    signal: Signal
    workflow_id: Id | None = None


class DeliverSignal(Model):
    """A signal that was let in, for one run; only Charter itself sends it. ``alone``: it was sent to this run alone."""

    kind: Literal["deliver_signal"] = "deliver_signal"
    workflow_id: Id
    signal: Signal
    alone: bool = False


class DeliverCallback(Model):
    """What another system called back with, for the ``external`` step that asked for it; its signature was verified by the
    door, which alone sends this. ``message_id`` names the message: it is taken once."""

    kind: Literal["deliver_callback"] = "deliver_callback"
    workflow_id: str
    step_id: str
    message_id: ShortText
    body: Json = None


class RecordUndelivered(Model):
    """A subscriber did not take a signal and is told of it no more; only Charter itself sends it."""

    kind: Literal["record_undelivered"] = "record_undelivered"
    subscriber: ShortText
    signal_id: ShortText
    signal_type: ShortText
    seq: int
    attempts: int
    reason: ShortText


class ResendSignal(Model):
    """Send a signal again that a subscriber did not take, to this one or to all who gave it up."""

    kind: Literal["resend_signal"] = "resend_signal"
    signal_id: ShortText
    subscriber: ShortText | None = None


class KeepSchedule(Model):
    """Start what is due of a schedule (``template/name``); only Charter itself sends it."""

    kind: Literal["keep_schedule"] = "keep_schedule"
    schedule: str


class ConfirmChild(Model):
    """The run that a step announced has started; only Charter itself sends it."""

    kind: Literal["confirm_child"] = "confirm_child"
    workflow_id: str
    child_workflow_id: str
    template: str


class EndChild(Model):
    """How a run ended that a step of this one started; only Charter itself sends it. ``code`` tells why none was started."""

    kind: Literal["end_child"] = "end_child"
    workflow_id: str
    child_workflow_id: str
    status: Literal["completed", "failed", "rejected", "cancelled", "never_started"]
    output: Json = None
    code: str | None = None
    reason: str | None = None


class NoteParentTold(Model):
    """The parent knows how this run ended; only Charter itself sends it."""

    kind: Literal["note_parent_told"] = "note_parent_told"
    workflow_id: str


class PinTool(Model):
    """Accept a tool's present definition. The manifest file is changed by the command line; this puts it on record."""

    kind: Literal["pin_tool"] = "pin_tool"
    tool: ShortText
    old_hash: str | None
    new_hash: str


class PublishTemplate(Model):
    """Make this definition what its ``name@version`` means from now on, for good. Its file is written by the command line;
    this puts it on record."""

    kind: Literal["publish_template"] = "publish_template"
    text: str = Field(description="The template in its native form, as JSON.")


class EraseSealed(Model):
    """Delete what is sealed under ``ref``, for good (a person's right). The record keeps the reference and its digest."""

    kind: Literal["erase_sealed"] = "erase_sealed"
    ref: ShortText
    reason: LongText


class RebuildLists(Model):
    """Make the lists, claims and pointers beside the log anew from it, after somebody changed them."""

    kind: Literal["rebuild_lists"] = "rebuild_lists"
    reason: LongText


class RotateKey(Model):
    """Another key signs the checkpoints from now on (both as vkeys). The files are changed by the command line; this puts it
    on record."""

    kind: Literal["rotate_key"] = "rotate_key"
    old_key: ShortText
    new_key: ShortText
    reason: LongText


Command = (
    StartWorkflow
    | ProposeAction
    | RequestApproval
    | InvokeTool
    | InvokeBatch
    | RecordOutcome
    | DecideApproval
    | DelegateApproval
    | GiveGrant
    | RevokeGrant
    | CompleteStep
    | CancelWorkflow
    | PauseWorkflow
    | ResumeWorkflow
    | RetryWorkflow
    | AdvanceWorkflow
    | RunStep
    | RecoverEffect
    | ResolveEffect
    | ReviewStep
    | SendSignal
    | DeliverSignal
    | DeliverCallback
    | RecordUndelivered
    | ResendSignal
    | KeepSchedule
    | ConfirmChild
    | EndChild
    | NoteParentTold
    | PinTool
    | PublishTemplate
    | EraseSealed
    | RebuildLists
    | RotateKey
)
