"""Steps of templates in which people decide, and the gates at the end of agents' steps; ``template`` has them all."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from charter.model.approval import Escalation, Requirement
from charter.model.base import Json, Model, Name
from charter.model.phase import Check
from charter.model.principal import person_key
from charter.model.template_parts import OnFailure, OnReject, Retry, StepBase


class ApprovalStep(StepBase):
    """People decide whether the workflow goes on."""

    type: Literal["approval"]
    question: str = Field(description="What people are asked; may hold {{ CEL }}.")
    show: Json = Field(
        default=None,
        description="What they decide by, a map of labels and values; may hold {{ CEL }}; their answer is bound to it.",
    )
    requirements: tuple[Requirement, ...] = Field(
        default=(Requirement(),), description="Who must approve; every one must be met. Default: one person."
    )
    order: Literal["parallel", "sequence"] = Field(
        default="parallel", description="All requirements at once, or each when the one before it is met."
    )
    distinct_from: tuple[str, ...] | None = Field(
        default=None,
        description="Steps whose approvers do not count here. Default: the template's separation_of_duties.",
    )
    edit: bool = Field(
        default=False, description="Whether a reviewer may change what is shown: a new revision to decide on."
    )
    amounts: tuple[str, ...] = Field(
        default=(),
        description="Labels of `show` that are whole numbers, by which the policy judges; all else fails the step.",
    )
    risk: Literal["low", "medium", "high"] = Field(
        default="medium", description="The policy says through which channels a risk may be decided."
    )
    expires_after_seconds: int = Field(
        default=86_400, ge=1, description="When nobody has decided by then, on_timeout says how it goes on."
    )
    on_timeout: Literal["reject", "fail", "escalate"] = Field(
        default="reject",
        description="As if it was rejected (see on_reject), the step fails, or the last escalation is asked; when they do "
        "not answer either, it fails where retry or on_failure says what follows, else it is as if rejected.",
    )
    escalations: tuple[Escalation, ...] = Field(
        default=(), description="Whom else to ask, and when; the earliest first."
    )
    retry: Retry | None = Field(
        default=None, description="A question that nobody answered in time is asked anew; one that got a no never is."
    )
    on_failure: OnFailure = Field(
        default="fail_workflow",
        description="When nobody answered, or it cannot be asked: the run fails; skip goes on without it and without all "
        "steps that need it; human_review asks a person. A no has on_reject.",
    )
    remind_after_seconds: int | None = Field(
        default=None,
        ge=60,
        le=31_536_000,
        description="People are reminded after so long, and again, while they are needed.",
    )
    on_reject: OnReject = Field(
        default="reject_workflow",
        description="A no ends the run as rejected, fails the step, or the run goes on with the decision as the output.",
    )
    if_approved: tuple[str, ...] = Field(default=(), description="Steps that run only when it is approved.")
    if_rejected: tuple[str, ...] = Field(default=(), description="Steps that run only when it is rejected.")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        skips = self.on_failure == "skip" and self.on_reject != "fail"
        if self.on_timeout == "reject" and (self.retry is not None or skips):
            raise ValueError(
                "`retry` and `on_failure: skip` are for when nobody answers, which is as if rejected by default: write "
                "`on_timeout: fail` beside them."
            )
        if (self.if_approved or self.if_rejected) and self.on_reject != "continue":
            raise ValueError("`if_approved` and `if_rejected` need `on_reject: continue`.")
        at_end = [item.after_seconds is None for item in self.escalations]
        if (self.on_timeout == "escalate") != (at_end[-1:] == [True]) or any(at_end[:-1]):
            raise ValueError(
                "`on_timeout: escalate` goes with a last escalation without `after_seconds`, and with none else."
            )
        times = [item.after_seconds for item in self.escalations if item.after_seconds is not None]
        if times != sorted(set(times)) or any(time >= self.expires_after_seconds for time in times):
            raise ValueError("Escalations come one after the other, each before `expires_after_seconds`.")
        asked = (*self.requirements, *self.escalations)
        if any(item.people and len({person_key(each) for each in item.people}) < item.approvers for item in asked):
            raise ValueError("More `approvers` are asked for than `people` are named, so it can never be met.")
        if self.amounts and not (isinstance(self.show, dict) and set(self.amounts) <= set(self.show)):
            raise ValueError("Each of `amounts` is a label of `show`.")
        return self

    @property
    def silence_fails(self) -> bool:
        """Nobody's answer, in the end, is a failure, and no rejection."""
        said = self.retry is not None or self.on_failure != "fail_workflow"
        return self.on_timeout == "fail" or (self.on_timeout == "escalate" and said)


class GateApproval(ApprovalStep):
    """Who opens a gate. Its ``id`` and ``type`` are given; ``needs`` and ``if`` are not for it."""

    id: Name = Field(default="gate", description="Leave it out.")
    type: Literal["approval"] = Field(default="approval", description="Leave it out.")
    question: str = Field(default="", description="What people are asked; default: whether the step may end.")


class Gate(Model):
    """What stands between an agent's work and the end of its step: checks, and people where ``approval`` is there.

    Checks that Charter can judge at once come first, then those that it gathers evidence for; people are asked last, about
    the questions and the gate itself together. The agent can do nothing meanwhile.
    """

    checks: tuple[Check, ...] = ()
    approval: GateApproval | None = Field(
        default=None, description="People who must say yes; they answer the questions."
    )
    attempts: int = Field(
        default=5, ge=1, le=100, description="How often it may be tried in one visit before the step fails."
    )
    timeout_seconds: int | None = Field(
        default=None, ge=1, le=315_360_000, description="How long it may take to open once the work was handed in."
    )
    on_timeout: Literal["reject", "fail", "return", "human_review"] = Field(
        default="reject", description="The run ends as rejected or failed, the agent goes on, or an operator says how."
    )
    on_reject: Literal["reject", "return"] = Field(
        default="reject", description="When people say no to the gate: the run ends as rejected, or the agent goes on."
    )
