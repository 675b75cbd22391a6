"""Requests for people to decide, and their decisions. Published as JSON Schemas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.base import JsonObject, Model
from charter.model.principal import Channel
from charter.model.tool import Risk

ApprovalVerdict = Literal["approve", "reject", "edit", "request_more_info"]
ApprovalStatus = Literal["pending", "approved", "rejected", "edited", "expired", "used", "withdrawn", "more_info"]


class Requirement(Model):
    """So many distinct approvers, of this role where one is named, through one of these channels where any is named."""

    role: str | None = None
    approvers: int = Field(default=1, ge=1)
    channels: tuple[Channel, ...] = ()
    policy_id: str | None = None


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


class ApprovalDecision(Model):
    """One person's immutable answer."""

    approval_id: str
    decision: ApprovalVerdict
    decided_by: str
    roles: tuple[str, ...] = ()
    channel: Channel
    digest: str
    comment: str | None = None
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
