"""The events of approvals and standing grants; ``events`` has them all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.approval import ApprovalRequest, ApprovalVerdict, GrantBounds, Requirement, Separation, Signature
from charter.model.base import Model
from charter.model.principal import Channel


class ApprovalRequested(Model):
    """People were asked."""

    request: ApprovalRequest


class ApprovalDecided(Model):
    """One person, or an agent that the policy lets decide, answered; several may be needed (``status`` tells).

    ``roles`` are their own and, of a delegate, those of whom they stand in for.
    """

    approval_id: str
    decision: ApprovalVerdict
    decided_by: str
    decided_by_kind: str
    acts_for: str | None = Field(default=None, description="For an agent: the person whom it serves.")
    roles: tuple[str, ...] = ()
    on_behalf_of: tuple[str, ...] = Field(default=(), description="Who handed their part to this person.")
    channel: Channel
    digest: str
    comment: str | None = None
    signature: Signature | None = Field(default=None, description="As it came; Charter does not check it.")
    status: Literal["pending", "approved", "rejected", "edited", "more_info"]
    replacement_proposal_id: str | None = None
    replacement_approval_id: str | None = Field(default=None, description="For an edited step: its next revision.")


class ApprovalTurn(Model):
    """In a sequence: the ones before have agreed, and the next are asked."""

    approval_id: str
    turn: int = Field(description="Which requirement it is, counted from 0.")
    asked: tuple[Requirement, ...]


class ApprovalReminded(Model):
    """People were reminded of a request that still waits for them."""

    approval_id: str
    number: int = Field(description="Counted from 1.")
    still_needed: tuple[Requirement, ...]


class ApprovalEscalated(Model):
    """Nobody answered in time, so others were asked: their approval is enough by itself."""

    approval_id: str
    number: int = Field(description="Counted from 1.")
    asked: tuple[Requirement, ...]
    earlier_may_answer: bool
    expires_at: str


class ApprovalDelegated(Model):
    """A person handed their part in a decision to another, who decides in their stead and with their roles."""

    approval_id: str
    delegated_by: str
    delegated_to: str
    roles: tuple[str, ...] = ()
    on_behalf_of: tuple[str, ...] = Field(default=(), description="Who handed the part to them before.")
    channel: Channel
    comment: str | None = None


class ApprovalClosed(Model):
    """An approval ended without, or after, its decisions."""

    approval_id: str
    status: Literal["expired", "withdrawn"]
    reason: str


class GrantGiven(Model):
    """A person gave a standing grant."""

    grant_id: str
    bounds: GrantBounds
    given_by: str
    roles: tuple[str, ...] = Field(default=(), description="Of who gave it, then: by them it is judged what it covers.")
    channel: Channel
    comment: str | None = None


class UnderGrant(Model):
    """Whose word lets a call pass under a standing grant, and for whom it was meant: who gave it has passed that step."""

    given_by: str
    roles: tuple[str, ...] = Field(default=(), description="Of those who would have been asked about the call.")
    separation: Separation = Field(default="none", description="The template's, for the workflow's own steps.")


class GrantRevoked(Model):
    """A standing grant was taken back."""

    grant_id: str
    revoked_by: str
    comment: str | None = None
    grant_use: int | None = Field(
        default=None,
        description="Of a case's grant, the next use, from 0: taken with it, so that no call under way takes it.",
    )
