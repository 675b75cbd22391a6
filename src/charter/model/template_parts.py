"""What the steps of templates are made of."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from charter.model.base import JsonObject, Model, Name

StepType = Literal["agent", "action", "approval", "condition", "wait", "workflow", "signal", "notification", "external"]
OnFailure = Literal["skip", "fail_workflow", "human_review"]
OnReject = Literal["reject_workflow", "fail", "continue"]
OnTimeout = Literal["fail", "reject", "skip"]
LONGEST = 315_360_000
"""Ten years, in seconds."""


class StepBase(Model):
    """What every step has. ``needs`` are the steps it waits for; ``if`` is a CEL condition. Times are seconds."""

    id: Name = Field(description="How other steps name it: steps.ID.output.")
    title: str | None = Field(default=None, description="What people read.")
    needs: tuple[str, ...] | None = Field(
        default=None, description="The steps that must be over before it opens; default: the step before it."
    )
    condition: str | None = Field(
        default=None, alias="if", description="CEL; false skips the step, an error fails it. Default: it always opens."
    )
    on_failure: OnFailure = Field(
        default="fail_workflow",
        description="When it failed for good: the run fails; skip goes on with a null output; human_review asks a person.",
    )

    no_retry: ClassVar[str | None] = None
    """Why an attempt of this type of step is not made again, and what to write instead; None where `retry` may stand."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _tried_again(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("on_failure") == "retry":
            how = cls.no_retry or "Write how often as `retry`, and under `on_failure` what follows the last attempt."
            raise ValueError(f"`on_failure` says what follows the last attempt. {how}")
        if isinstance(given, dict) and cls.no_retry is not None and given.get("retry") is not None:
            raise ValueError(f"`retry` makes no sense here. {cls.no_retry}")
        return given


class Retry(Model):
    """How often a failed attempt is made again: after ``backoff_seconds``, and twice as long each time."""

    attempts: int = Field(ge=1, le=20, description="How many attempts there are in all.")
    backoff_seconds: int = Field(default=1, ge=0, description="The wait before the second attempt; it doubles.")
    max_backoff_seconds: int = Field(default=3600, ge=0, description="No wait is longer.")
    jitter_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Up to so much of each wait is taken off at random, so that not all come at once.",
    )

    def wait_after(self, attempt: int, per_mille: int = 0) -> int:
        """Milliseconds between this attempt, counted from 1, and the next; ``per_mille`` (0 to 999) is the chance handed in."""
        doubled: int = self.backoff_seconds * 2 ** (attempt - 1)
        wait = min(doubled, self.max_backoff_seconds) * 1000
        return wait - wait * self.jitter_percent * per_mille // 100_000


class HttpRetry(Retry):
    """As ``Retry``, with jitter; a ``Retry-After`` of the other side is honoured up to a day."""

    jitter_percent: int = Field(
        default=50,
        ge=0,
        le=100,
        description="Up to so much of each wait is taken off at random, so that not all come at once.",
    )


class Compensate(Model):
    """What undoes a step: a governed tool call, or another step of the template, which then does nothing else."""

    tool: str | None = Field(default=None, description="Its governed name: server__tool.")
    step: Name | None = Field(
        default=None,
        description="Instead: a step that does nothing but undo: action, external, notification, workflow, agent.",
    )
    arguments: JsonObject = Field(
        default_factory=dict, description="What it is called with; may hold {{ CEL }}, the step's own output included."
    )
    reason: str = Field(default="", description="What people read when the policy asks them.")
    retry: Retry | None = Field(default=None, description="Failed attempts are made again, before a person is asked.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.tool is None) == (self.step is None):
            raise ValueError("What undoes a step is a `tool` or a `step` of the template.")
        if self.step is not None and (self.arguments or self.reason or self.retry):
            raise ValueError("The `step` that undoes it says arguments, reason and retry itself.")
        return self


class SignalMatch(Model):
    """Which signals a wait is for."""

    type: Name
    where: str | None = Field(
        default=None, description="CEL over signal, trigger, steps and workflow; true for a match."
    )


class Poll(Model):
    """A governed tool call that is made again and again, until its answer is what a wait is for."""

    tool: str = Field(description="Its governed name: server__tool. Each call is decided by the policy and recorded.")
    arguments: JsonObject = Field(default_factory=dict, description="What it is called with; may hold {{ CEL }}.")
    until: str = Field(
        description="CEL over result (what the tool answered), trigger, steps and workflow; true ends the wait."
    )
    every_seconds: int = Field(ge=1, le=31_536_000, description="From one answer to the next call.")
    attempts: int = Field(default=1000, ge=1, le=10_000, description="How many calls there are at most.")
    reason: str = Field(default="", description="What people read when the policy asks them.")


class SignalStart(Model):
    """A signal that starts a run, with its data as the input."""

    type: Name
    where: str | None = Field(default=None, description="CEL over signal; true for one that starts a run.")


class ScheduleStart(Model):
    """Times at which a run is started, by Charter itself; the policy decides on each start."""

    name: Name = Field(default="default", description="Tells several schedules of a template apart.")
    cron: str = Field(
        max_length=100,
        description='Five fields: minute, hour, day of the month, month, day of the week: "0 9 * * MON-FRI".',
    )
    time_zone: str = Field(default="UTC", max_length=64, description="An IANA name, such as Europe/Berlin.")
    input: JsonObject = Field(
        default_factory=dict, description="The run's input; may hold {{ CEL }} over schedule (name, time, time_zone)."
    )
    missed: Literal["skip", "once", "all"] = Field(
        default="once", description="Times that passed while Charter was down: none, one run for all, or each."
    )
    limit: int = Field(default=10, ge=1, le=100, description="For all: at most so many, the newest.")
    grace_seconds: int = Field(default=60, ge=0, le=86_400, description="A time is missed when it is longer past.")
