"""Events about signals that leave and about times that come; a part of ``events``, which is where others find them."""

from __future__ import annotations

from pydantic import Field

from charter.model.base import Json, Model


class Cause(Model):
    """The signal, or the schedule, that started a run. ``depth``: how many such starts lie behind it, itself included."""

    signal_type: str | None = None
    signal_source: str | None = None
    signal_id: str | None = None
    schedule: str | None = None
    due_at: str | None = None
    correlation_id: str | None = Field(default=None, description="Goes on in the signals that the run sends.")
    depth: int = 0


class SignalSent(Model):
    """A ``signal`` step said something: to those who subscribe, and to the tenant's own runs and templates."""

    step_id: str
    type: str
    subject: str | None = None
    data: Json = None


class SignalUndelivered(Model):
    """A subscriber did not take a signal and is told of it no more; ``seq`` is its event's number in the log."""

    subscriber: str
    signal_id: str
    signal_type: str
    seq: int
    attempts: int
    reason: str


class SignalResent(Model):
    """An operator has a signal sent again to a subscriber that gave it up; ``seq`` is its own event's number in the log."""

    subscriber: str
    signal_id: str
    signal_type: str
    seq: int
    by: str


class ScheduleSet(Model):
    """A schedule is new, or says other times: from ``through`` on."""

    schedule: str
    cron: str
    time_zone: str
    through: str


class ScheduleFired(Model):
    """A time came, and a run was started (``workflow_id``) or not; ``missed`` times before it were left out."""

    schedule: str
    cron: str
    time_zone: str
    through: str = Field(description="Everything until then is settled.")
    due_at: str
    template: str
    workflow_id: str | None = None
    not_started: str | None = Field(default=None, description="Why: the policy's code or the input's, and the reason.")
    missed: int = 0


class ScheduleMissed(Model):
    """Times passed while nobody was there, and none is made up; at most the newest hundred are counted."""

    schedule: str
    cron: str
    time_zone: str
    through: str
    missed: int
    policy: str
