"""Workflow definitions: ``name@version``, content-hashed, immutable once published."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from charter.model.approval import Separation
from charter.model.approval_step import ApprovalStep, Gate, GateApproval
from charter.model.base import Json, JsonObject, Model, Name
from charter.model.outbound import Callback, HttpCall, Message
from charter.model.phase import ArgumentRule, Artifact, GoBack, artifacts_schema
from charter.model.template_parts import (
    LONGEST,
    Compensate,
    HttpRetry,
    OnFailure,
    OnReject,
    OnTimeout,
    Poll,
    Retry,
    ScheduleStart,
    SignalMatch,
    SignalStart,
    StepBase,
    StepType,
)
from charter.model.tool import Risk

__all__ = [
    "ApprovalStep",
    "Compensate",
    "Gate",
    "GateApproval",
    "HttpRetry",
    "OnFailure",
    "OnReject",
    "OnTimeout",
    "Poll",
    "Retry",
    "ScheduleStart",
    "SignalMatch",
    "SignalStart",
    "StepBase",
    "StepType",
]


class AgentStep(StepBase):
    """Opens an invocation for an agent, until it completes the step.

    ``allowed_tools`` are names; ``*`` at the end of one matches the rest.
    """

    type: Literal["agent"]
    instructions: str = Field(default="", description="What the agent is to do; may hold {{ CEL }}.")
    agent: str | None = Field(
        default=None,
        description="An agent's id, role:NAME, or * for the first agent to claim it; default: who started the workflow.",
    )
    allowed_tools: tuple[str, ...] = Field(
        default=(), description="Governed names (server__tool); a * at the end of one matches the rest. Default: none."
    )
    forbidden_tools: tuple[str, ...] = Field(
        default=(), description="Outweighs allowed_tools; a * at the end of one matches the rest."
    )
    argument_rules: tuple[ArgumentRule, ...] = Field(
        default=(),
        description="What the arguments of allowed tools must be; every rule that is about a call must hold.",
    )
    calls: int = Field(
        default=1000, ge=0, description="How many tool calls an attempt may make, over all tries of its gate."
    )
    expires_after_seconds: int = Field(
        default=86_400, ge=1, description="The attempt fails when the step is not completed by then."
    )
    retry: Retry | None = Field(
        default=None,
        description="An attempt that was not completed in time, or whose gate stayed shut, is followed by another, with an "
        "invocation, calls and time of its own.",
    )
    output_schema: JsonObject | None = Field(
        default=None, description="JSON Schema that the output of complete_step must satisfy."
    )
    artifacts: tuple[Artifact, ...] = Field(
        default=(), description="What the agent must hand over, by name: the output is then a map of them."
    )
    gate: Gate | None = Field(default=None, description="What must hold before the step ends as completed.")
    compensate: Compensate | None = Field(
        default=None,
        description="What undoes the work when the run fails, is rejected or cancelled after it was completed.",
    )
    go_back: tuple[GoBack, ...] = Field(
        default=(), description="When the run goes back to an earlier agent step; the first that applies is taken."
    )
    max_visits: int = Field(
        default=3, ge=1, le=50, description="How often the run may come to this step; going back beyond fails the run."
    )

    @property
    def handed_over(self) -> JsonObject | None:
        """JSON Schema of what the agent hands over, or None for anything: ``output_schema``, or made of the artifacts."""
        return artifacts_schema(self.artifacts) if self.artifacts else self.output_schema


class CallStep(StepBase):
    """What the steps have that run a governed tool: the workflow itself makes the call."""

    reason: str = Field(default="", description="What people read when the policy asks them.")
    retry: Retry | None = Field(default=None, description="Failed attempts are made again; those in doubt never are.")
    on_failure: OnFailure = Field(
        default="fail_workflow",
        description="When the tool failed for good or is denied: skip goes on with a null output, human_review asks a person.",
    )
    on_reject: OnReject = Field(
        default="reject_workflow",
        description="When people whom the policy asked say no, or nobody answers: the run ends as rejected, the step fails "
        "(on_failure says what then), or it is skipped.",
    )
    compensate: Compensate | None = Field(
        default=None, description="What undoes it when the run fails, is rejected or cancelled after it was done."
    )


class ChildStep(StepBase):
    """Starts a run of another template and waits for it; its output is the child's, and cancelling it cancels the child.

    The policy decides on the start as on any other, with whoever started this run as the caller.
    """

    type: Literal["workflow"]
    template: str = Field(description="name for the newest version when the step opens, or name@version.")
    input: JsonObject = Field(default_factory=dict, description="The child's input; may hold {{ CEL }}.")
    retry: Retry | None = Field(default=None, description="A child that failed is followed by another, in its turn.")
    on_failure: OnFailure = Field(
        default="fail_workflow",
        description="When the child failed, was rejected, cancelled or not let start: skip goes on, human_review asks.",
    )
    compensate: Compensate | None = Field(
        default=None,
        description="What undoes a child that was completed when this run fails, is rejected or cancelled.",
    )
    timeout_seconds: int | None = Field(
        default=None, ge=1, le=LONGEST, description="From when it opens; a child that is not done then is cancelled."
    )
    on_timeout: OnTimeout = Field(
        default="fail", description="fail is a failure like any other (on_failure); reject ends the run; skip goes on."
    )


class ActionStep(CallStep):
    """A governed tool call by the workflow itself."""

    type: Literal["action"]
    tool: str = Field(description="Its governed name: server__tool.")
    arguments: JsonObject = Field(default_factory=dict, description="What it is called with; may hold {{ CEL }}.")
    timeout_seconds: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST,
        description="From when it opens to its end: approvals, attempts and pauses between.",
    )
    on_timeout: OnTimeout = Field(
        default="fail", description="fail is a failure like any other (on_failure); reject ends the run; skip goes on."
    )


class ExternalStep(HttpCall, CallStep):
    """An HTTP request by the workflow itself, as a governed call of ``charter__http_request``.

    Its output is ``{status, headers, body}``, or ``status`` and what ``extract`` names; with ``callback``, what the callback
    brings, and what was extracted from the answer.
    """

    type: Literal["external"]
    retry: HttpRetry | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - steps are frozen
        default=None,
        description="What was not taken up (no connection, 408, 425, 429, 503) is sent again; an idempotent request also after "
        "500, 502, 504 and a lost answer; all under one Idempotency-Key.",
    )
    callback: Callback | None = Field(
        default=None, description="The step ends when the other side has called back. Default: with the answer."
    )


class ConditionStep(StepBase):
    """Branches: it ends at once, and the steps of the branch that was not taken are skipped when their turn comes.

    Its output is ``{value, branch, left_out}``. A condition that is skipped itself takes neither branch.
    """

    no_retry: ClassVar[str | None] = (
        "An expression has no other value a second time: leave `retry` out; human_review asks a person."
    )
    type: Literal["condition"]
    expression: str = Field(description="CEL; true or false. Anything else, and any error, fails the step.")
    if_true: tuple[str, ...] = Field(default=(), description="Steps that run only when it is true.")
    if_false: tuple[str, ...] = Field(default=(), description="Steps that run only when it is false.")


class WaitStep(StepBase):
    """Goes on at a time, after some seconds, when a signal comes in, or when a polled tool answers as hoped.

    Its output is ``{until, ended_at}``, ``{signal}`` or ``{result, polls}``; a time that is past ends it at once.
    """

    no_retry: ClassVar[str | None] = (
        "A wait goes on until it is over: say how long as `timeout_seconds`, and how often as `poll.attempts`."
    )
    type: Literal["wait"]
    until: str | None = Field(default=None, description="RFC 3339 with an offset, or {{ CEL }} that gives such a text.")
    seconds: int | None = Field(default=None, ge=0, le=315_360_000, description="Counted from when it opens.")

    signal: SignalMatch | None = Field(default=None, description="The first signal after it opened that matches.")
    poll: Poll | None = Field(default=None, description="A tool that is asked until its answer is what is waited for.")
    timeout_seconds: int | None = Field(
        default=None, ge=1, le=LONGEST, description="How long it waits for a signal or an answer. Default: no limit."
    )
    on_timeout: OnTimeout = Field(
        default="reject", description="When nothing came in time: the run fails, ends as rejected, or goes on."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if [self.until, self.seconds, self.signal, self.poll].count(None) != 3:
            raise ValueError("A wait has one of `until`, `seconds`, `signal` and `poll`.")
        if self.signal is None and self.poll is None and self.timeout_seconds is not None:
            raise ValueError("`timeout_seconds` is how long a wait for a `signal` or `poll` lasts; it has neither.")
        return self


class NotificationStep(Message, CallStep):
    """A webhook or an e-mail, as a governed call of ``charter__webhook`` or ``charter__email``.

    The steps after it do not wait for its delivery, unless it says ``wait``; the run ends when it is delivered or given up.
    """

    type: Literal["notification"]
    wait: bool = Field(default=False, description="Whether the steps that need it wait until it is delivered.")
    timeout_seconds: int = Field(default=30, ge=1, le=600, description="For one attempt.")
    risk: Risk = Field(default="low", description="What the policy is told.")
    retry: HttpRetry | None = Field(  # pyright: ignore[reportIncompatibleVariableOverride] - steps are frozen
        default=HttpRetry(attempts=5, backoff_seconds=5, max_backoff_seconds=300),
        description="How often it is sent; default: 5 times within about a minute.",
    )
    on_failure: OnFailure = Field(
        default="skip",
        description="When it could not be delivered: skip puts it among the dead letters (charter effects) and goes on, "
        "human_review asks a person.",
    )


class SignalText(Model):
    """What a step says. Types ``workflow.…`` and ``approval.…`` are Charter's own."""

    type: Name
    subject: str | None = Field(default=None, max_length=500, description="What it is about; may hold {{ CEL }}.")
    data: Json = Field(default=None, description="May hold {{ CEL }}; an object, where it is to start runs.")


class SignalStep(StepBase):
    """Sends a signal: to those who subscribe, and to the tenant's own runs and templates. It ends at once.

    Its output is ``{type, subject, data}``. It never waits for who listens, and no listener's failure is its own.
    """

    no_retry: ClassVar[str | None] = (
        "It fails only when its expressions have no value, which they have not a second time: leave `retry` out."
    )
    type: Literal["signal"]
    signal: SignalText


AgentStep.model_rebuild()

Step = Annotated[
    AgentStep
    | ActionStep
    | ApprovalStep
    | ConditionStep
    | WaitStep
    | ChildStep
    | ExternalStep
    | NotificationStep
    | SignalStep,
    Field(discriminator="type"),
]


def branches_of(step: Step) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The steps that run only if it was true (approved), and only if it was false (rejected)."""
    if isinstance(step, ConditionStep):
        return step.if_true, step.if_false
    return (step.if_approved, step.if_rejected) if isinstance(step, ApprovalStep) else ((), ())


UNDO = "undo:"
"""What the id of the step begins with that undoes another; no template can name a step so."""


UNDOERS = (ActionStep, ExternalStep, NotificationStep, ChildStep, AgentStep)
"""The types of steps that can undo another one: those that do something."""


def compensation(step: Step) -> Compensate | None:
    """What its template says undoes this step."""
    return step.compensate if isinstance(step, AgentStep | CallStep | ChildStep) else None


def undo_of(template: Template, step: Step) -> Step | None:
    """The step that undoes this one, as a step of its own that asks a person when it fails."""
    how = compensation(step)
    if how is None:
        return None
    undo: Step
    if how.tool is not None:
        undo = ActionStep(
            id=step.id,
            type="action",
            tool=how.tool,
            arguments=how.arguments,
            reason=how.reason or f"Undoes step {step.id!r}.",
            retry=how.retry,
        )
    else:
        named = next((item for item in template.steps if item.id == how.step), None)
        if not isinstance(named, UNDOERS):
            return None  # refused when the template is loaded
        undo = named
    terms = {"id": f"{UNDO}{step.id}", "on_failure": "human_review", "compensate": None}
    if isinstance(undo, CallStep):
        terms["on_reject"] = "reject_workflow"
    return undo.model_copy(update=terms)


class Template(Model):
    """A workflow definition in its native form."""

    name: Name
    version: str = Field(
        pattern=r"^[0-9]+(\.[0-9]+){0,2}$", description='In quotes: "1", "1.2"; a published version never changes.'
    )
    title: str | None = Field(default=None, description="What people read.")
    description: str = Field(default="", description="When to use it: agents and people choose by this.")
    input_schema: JsonObject = Field(
        default_factory=lambda: {"type": "object"},
        alias="input",
        description="JSON Schema of the input, which expressions read as trigger.",
    )
    on_signal: tuple[SignalStart, ...] = Field(
        default=(), description="Signals that start a run of the newest version; their data, an object, is the input."
    )
    on_schedule: tuple[ScheduleStart, ...] = Field(
        default=(), description="Times at which a run of the newest version starts."
    )
    separation_of_duties: Separation = Field(
        default="roles",
        description="Who approved one step does not count for another one that is meant for other roles (roles), for no "
        "other one (all), or may (none).",
    )
    steps: tuple[Step, ...] = Field(min_length=1)
    output: Json = Field(default=None, description="The run's result; may hold {{ CEL }}.")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @cached_property
    def undoers(self) -> frozenset[str]:
        """The steps that only undo others, and are no part of the way that a run goes."""
        return frozenset(how.step for step in self.steps if (how := compensation(step)) is not None and how.step)

    def needs_of(self, index: int) -> tuple[str, ...]:
        """The steps that step number ``index`` waits for: what it says, else the one before it on the run's way. One that
        undoes others comes after those."""
        step, undoers = self.steps[index], self.undoers
        if step.id in undoers:
            return tuple(item.id for item in self.steps if (how := compensation(item)) and how.step == step.id)
        if step.needs is not None:
            return step.needs
        for before in range(index - 1, -1, -1):
            if self.steps[before].id not in undoers:
                return (self.steps[before].id,)
        return ()
