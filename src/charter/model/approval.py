"""Requests for people to decide, and their decisions. Published as JSON Schemas."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from charter.model.base import Json, JsonObject, Model, ShortText
from charter.model.principal import Channel, PrincipalKind
from charter.model.tool import Risk

ApprovalVerdict = Literal["approve", "reject", "edit", "request_more_info"]
ApprovalStatus = Literal["pending", "approved", "rejected", "edited", "expired", "used", "withdrawn", "more_info"]


Separation = Literal["none", "roles", "all"]
"""Which steps of one run the same person may pass: each that they may decide; not two that are meant for different roles,
even if they hold both; no two at all. With ``none`` one person may also meet several requirements of one request."""


class Requirement(Model):
    """So many distinct approvers: of this role and among these people where they are named, through one of these channels
    where any is named. An agent's decision counts where the policy lets it decide, unless ``people_only``."""

    role: str | None = None
    people: tuple[str, ...] = Field(default=(), description="Only these people count; default: anybody.")
    approvers: int = Field(default=1, ge=1)
    channels: tuple[Channel, ...] = ()
    people_only: bool = Field(default=False, description="No agent's decision counts, whatever the policy grants.")
    policy_id: str | None = None


class Escalation(Requirement):
    """Others, whose approval is enough by itself from then on. With ``after_seconds`` they are asked so long after the request,
    which ends when it would have; without it when the request's time is over, and they have ``expires_after_seconds``."""

    after_seconds: int | None = Field(default=None, ge=1, le=315_360_000, description="Counted from the request.")
    earlier_may_answer: bool = Field(default=True, description="Whether those who were asked before still count.")
    expires_after_seconds: int = Field(
        default=86_400, ge=1, le=315_360_000, description="How long they have; only without after_seconds."
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.role is None and not self.people:
            raise ValueError("An escalation names a `role`, `people`, or both.")
        return self


class ShownField(Model):
    """One line of what an approver sees, already masked as the manifest says and stripped of control characters."""

    label: str
    value: str


class ApprovalRequest(Model):
    """A request for people to decide on one exact call (``proposal_id``) or on a step.

    ``digest`` binds tenant, workflow, invocation, tool, tool-definition hash and arguments; a decision holds for it alone.
    """

    approval_id: str
    workflow_id: str
    step_id: str
    agent_invocation_id: str | None = None
    proposal_id: str | None = None
    tool: str | None = None
    risk: Risk = "high"
    digest: str
    reason: str = Field(description="Why the agent wants it, in the agent's words: hostile until read.")
    asked_because: str = Field(description="The policy's reason, computed by Charter.")
    dry_run: bool = Field(default=False, description="Whatever is decided, nothing is executed: the run is a dry run.")
    policy_ids: tuple[str, ...] = ()
    policy_set_hash: str
    requirements: tuple[Requirement, ...]
    shown: tuple[ShownField, ...] = ()
    preview: str | None = None
    requested_by: str
    requested_by_kind: str
    owner: str | None = None
    requested_at: str
    expires_at: str
    allow_edit: bool = True
    in_sequence: bool = Field(default=False, description="The requirements are asked one after the other.")
    remind_after_seconds: int | None = Field(
        default=None, description="Between reminders, the first after the request."
    )
    escalations: tuple[Escalation, ...] = Field(default=(), description="In the order of their times.")
    separation: Separation = "none"
    distinct_from: tuple[str, ...] | None = Field(
        default=None, description="Steps whose approvers do not count here, and the other way round; null: separation."
    )
    values: Json = Field(default=None, description="What a step shows, as data, where a reviewer may edit it.")
    amounts: dict[str, int] = Field(default_factory=dict, description="Whole numbers that the policy may judge by.")
    revision: int = Field(default=1, ge=1, description="Counts the edits of what a step shows.")
    replaces: str | None = Field(default=None, description="The request of which this is an edited revision.")


class Signature(Model):
    """A signature over the approval's digest, by whoever decided; recorded as it came, for whoever holds the key."""

    algorithm: ShortText
    key_id: ShortText
    value: str = Field(max_length=4000)


class ApprovalDecision(Model):
    """One person's immutable answer."""

    approval_id: str
    decision: ApprovalVerdict
    decided_by: str
    decided_by_kind: PrincipalKind = "human"
    acts_for: str | None = Field(default=None, description="For an agent: the person whom it serves.")
    roles: tuple[str, ...] = ()
    on_behalf_of: tuple[str, ...] = Field(default=(), description="Who handed their part to this person.")
    channel: Channel
    digest: str
    comment: str | None = Field(default=None, description="For an agent: its reasoning, always.")
    signature: Signature | None = None
    decided_at: str
    replacement_proposal_id: str | None = Field(
        default=None, description="For edit: the new proposal that replaces it."
    )


class GrantBounds(Model):
    """What a standing grant covers: a tool, a JSON Schema that the arguments must satisfy, and where."""

    tool: str
    arguments: JsonObject = Field(description="JSON Schema for the arguments; {} means any.")
    workflow_id: str | None = None
    case_id: str | None = None
    uses: int = Field(ge=1, le=10_000)
    expires_at: str
