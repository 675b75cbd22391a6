"""What a command or a query answers, for the doors to render."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.approval import ApprovalRequest, Requirement
from charter.model.base import Json, JsonObject, Model
from charter.model.events import ApprovalDecided, ApprovalDelegated
from charter.model.phase import ArgumentRule
from charter.model.policy import Decision


class OpenInvocation(Model):
    """An invocation that the caller may use now."""

    agent_invocation_id: str
    step_id: str
    title: str | None = None
    instructions: str = ""
    allowed_tools: tuple[str, ...] = ()
    calls_left: int = 0
    expires_at: str = ""
    output_schema: JsonObject | None = None
    forbidden_tools: tuple[str, ...] = Field(default=(), description="They outweigh the allowed ones.")
    argument_rules: tuple[ArgumentRule, ...] = Field(
        default=(), description="What the arguments of allowed tools must be; a call that breaks one is denied."
    )
    checks: tuple[str, ...] = Field(default=(), description="What will be checked before the step ends as completed.")
    returned: tuple[str, ...] = Field(default=(), description="Why the work came back, when it did.")


class Blocker(Model):
    """Who or what a workflow waits for."""

    what: Literal[
        "agent",
        "approval",
        "effect_in_doubt",
        "effect",
        "review",
        "timer",
        "signal",
        "callback",
        "workflow",
        "operator",
        "engine",
    ]
    who: str
    since: str
    detail: str
    approval_id: str | None = None
    effect_id: str | None = None
    step_id: str | None = None


class WorkflowContext(Model):
    """Where a run is and what the caller may do in it. Published as a JSON Schema."""

    workflow_id: str
    tenant_id: str
    actor: dict[str, str]
    template: str
    status: Literal["running", "waiting", "paused", "compensating", "completed", "failed", "cancelled", "rejected"]
    purpose: str
    case_id: str | None = None
    dry_run: bool = False
    current_step: str | None = None
    allowed_tools: tuple[str, ...] = Field(
        default=(), description="Of all the caller's invocations together; each names its own."
    )
    approval_required: bool = False
    invocations: tuple[OpenInvocation, ...] = ()
    blocked_by: tuple[Blocker, ...] = ()
    steps: dict[str, str] = Field(default_factory=dict, description="Each step's state.")
    output: Json = None
    reason: str | None = None
    parent_workflow_id: str | None = Field(default=None, description="The run whose step started this one.")
    children: dict[str, str] = Field(default_factory=dict, description="The run that each workflow step started last.")
    next_step: str = ""


class ProposalView(Model):
    """A proposal and what the policy says of it."""

    proposal_id: str
    workflow_id: str
    agent_invocation_id: str | None
    tool: str
    digest: str
    decision: Literal["permit", "require_approval", "deny"]
    reason: str
    code: str
    policy_ids: tuple[str, ...] = ()
    policy_set_hash: str
    requirements: tuple[Requirement, ...] = ()
    approval_id: str | None = None
    approval_status: str | None = None
    expires_at: str | None = None
    asked_now: bool = Field(default=False, description="This very command put the request to people on record.")
    next_step: str


class Publication(Model):
    """A template that is published. ``anew``: it was put on record just now, else it was before."""

    template: str
    template_hash: str
    anew: bool


class ToolOutcome(Model):
    """A governed call's end. ``status`` ``pending_approval`` means that nothing ran."""

    status: Literal["succeeded", "failed", "in_doubt", "pending_approval", "denied", "dry_run", "input_required"]
    workflow_id: str
    proposal_id: str | None = None
    effect_id: str | None = None
    tool: str
    is_error: bool = False
    content: tuple[JsonObject, ...] = ()
    structured: Json = None
    meta: JsonObject | None = Field(default=None, description="The upstream's own metadata of its result.")
    result_ref: str | None = None
    result_bytes: int = 0
    input_required: JsonObject | None = Field(default=None, description="The upstream asks its caller for input.")
    proposal: ProposalView | None = None
    error_code: str | None = None
    error_message: str | None = None
    next_step: str = ""


class BatchMember(Model):
    """One proposal of a batch, at the place where it was asked for.

    ``denied``, ``refused``: nothing of it ran. ``error``: ``error_code`` tells whether anybody knows.
    """

    index: int
    proposal_id: str
    tool: str = ""
    status: Literal["succeeded", "failed", "in_doubt", "pending_approval", "denied", "dry_run", "refused", "error"]
    effect_id: str | None = None
    is_error: bool = False
    content: tuple[JsonObject, ...] = ()
    structured: Json = None
    meta: JsonObject | None = Field(default=None, description="The upstream's own metadata of its result.")
    result_ref: str | None = None
    result_bytes: int = 0
    error_code: str | None = None
    error_message: str | None = None
    note: str | None = Field(default=None, description="What Charter answered in the caller's place.")
    next_step: str = ""

    @property
    def succeeded(self) -> bool:
        """It ran, or was a dry run, and its answer is no error."""
        return self.status in ("succeeded", "dry_run") and not self.is_error


class BatchOutcome(Model):
    """How a batch ended: each member in the order in which it was asked for."""

    workflow_id: str
    results: tuple[BatchMember, ...]
    succeeded: int
    failed: int
    next_step: str = ""


class Moved(Model):
    """One thing that happened because somebody had the run go on."""

    what: str = Field(description="The type of the event on record.")
    detail: str
    step_id: str | None = None
    approval_id: str | None = None


class Advanced(Model):
    """What having a run go on did, and what it still misses."""

    workflow_id: str
    status: str
    moved: tuple[Moved, ...] = Field(default=(), description="What was due and was done now, in order.")
    ready: tuple[str, ...] = Field(default=(), description="Steps whose calls Charter's server makes now.")
    missing: tuple[Blocker, ...] = Field(default=(), description="Who or what it waits for, people first.")
    next_step: str = ""


class WorkflowStepResult(Model):
    """How a step ended, and where the run went. Published as a JSON Schema."""

    workflow_id: str
    step_id: str
    status: str
    output: Json = None
    workflow: WorkflowContext


class Decided(Model):
    """How an approval stands after a person's answer."""

    approval_id: str
    status: str
    decision: str
    still_needed: tuple[Requirement, ...] = ()
    or_instead: tuple[Requirement, ...] = Field(
        default=(), description="Whom it was escalated to: each of these is enough by itself."
    )
    replacement_proposal_id: str | None = None
    replacement_approval_id: str | None = None
    decision_of_replacement: Decision | None = None
    next_step: str = ""


class SignalSent(Model):
    """What became of a signal. ``duplicate``: it came in before, and nothing was delivered again."""

    status: Literal["received", "duplicate"]
    woken: tuple[str, ...] = Field(default=(), description="The workflows that went on because of it.")
    started: tuple[str, ...] = Field(default=(), description="The workflows that it started.")
    not_started: dict[str, str] = Field(
        default_factory=dict, description="Templates that it started no run of, and why."
    )


class ScheduleView(Model):
    """A schedule as operators see it."""

    schedule: str
    template: str
    cron: str
    time_zone: str
    missed: str
    settled_through: str | None = Field(default=None, description="Everything until then was fired or left out.")
    last_run: str | None = None
    not_started: str | None = None
    next_at: str | None = None


class ToolView(Model):
    """A governed tool as an agent sees it."""

    name: str
    title: str | None = None
    description: str
    input_schema: JsonObject
    output_schema: JsonObject | None = None
    risk: str
    side_effects: str
    idempotent: bool
    approval: Literal["not_needed", "needed", "depends", "unavailable"]
    note: str | None = None


class ApprovalView(Model):
    """An approval as a person sees it: facts that Charter computed first, the agent's words marked as such."""

    request: ApprovalRequest
    status: str
    still_needed: tuple[Requirement, ...] = ()
    or_instead: tuple[Requirement, ...] = Field(
        default=(), description="Whom it was escalated to: each of these is enough by itself."
    )
    expires_at: str = ""
    delegations: tuple[ApprovalDelegated, ...] = ()
    decisions: tuple[ApprovalDecided, ...] = ()
    arguments: JsonObject = Field(default_factory=dict)
    history: tuple[str, ...] = Field(default=(), description="What else this agent did in this workflow, newest last.")
    purpose: str = ""
    template: str = ""
