"""The events of runs as wholes: that start others, undo what they did, are held, end and go on; ``events`` has them all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.base import Json, Model


class ChildStarted(Model):
    """The run that a step announced is there; its WORKFLOW_STARTED has the same causation id unless a crash came between."""

    step_id: str
    child_workflow_id: str
    template: str


class ChildEnded(Model):
    """What became of a run that a step started; ``never_started`` means that there is none and will be none."""

    step_id: str
    child_workflow_id: str
    status: Literal["completed", "failed", "rejected", "cancelled", "never_started"]
    reason: str | None = None


class ParentTold(Model):
    """The end of this run is on its parent's record."""

    parent_workflow_id: str


class WorkflowRetried(Model):
    """A failed run goes on from these steps, because somebody said so."""

    by: str
    steps: tuple[str, ...]
    reason: str = ""


class CompensationStarted(Model):
    """The run will end as ``ending`` says; first what was done is undone, the last step first."""

    ending: Literal["WORKFLOW_FAILED", "WORKFLOW_CANCELLED", "WORKFLOW_REJECTED"]
    code: str | None = None
    reason: str | None = None


class WorkflowEnded(Model):
    """A run ended: completed, failed, cancelled or rejected by the event's type."""

    output: Json = None
    code: str | None = None
    reason: str | None = None
    compensated: tuple[str, ...] = Field(default=(), description="The steps that were undone, in that order.")
    not_compensated: tuple[str, ...] = Field(
        default=(), description="Those that a person left as they are; their undoing failed."
    )


class WorkflowHeld(Model):
    """An operator paused a run, or resumed it, by the event's type."""

    by: str
    reason: str = ""
