"""What the policy evaluator is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from charter.model.base import JsonObject, Model
from charter.model.principal import Channel, Principal, PrincipalKind
from charter.model.tool import Risk, SideEffects

Action = Literal[
    "workflow.start",
    "workflow.read",
    "workflow.cancel",
    "workflow.pause",
    "workflow.retry",
    "workflow.advance",
    "step.complete",
    "tool.invoke",
    "approval.request",
    "approval.read",
    "approval.decide",
    "approval.delegate",
    "grant.give",
    "grant.revoke",
    "effect.resolve",
    "step.review",
    "signal.send",
    "tool.pin",
    "template.publish",
    "audit.read",
    "record.erase",
    "record.maintain",
]
"""One verb per command; Cedar sees ``Charter::Action::"tool.invoke"``. Proposing is asked as ``tool.invoke``: would it run?"""

Verdict = Literal["permit", "deny", "require_approval"]


class Approved(Model):
    """One distinct approver of this exact call."""

    approver: str
    roles: tuple[str, ...] = ()
    channel: Channel = "api"
    kind: PrincipalKind | None = Field(
        default=None, description="Of the approver's credential. Only a human's counts; unknown does not count by api."
    )
    acts_for: str | None = Field(default=None, description="For an agent: the person whom it serves.")
    on_behalf_of: tuple[str, ...] = Field(default=(), description="Who handed their part to this person.")


class ToolFacts(Model):
    """The tool as a policy sees it."""

    name: str
    server: str
    risk: Risk
    side_effects: SideEffects
    idempotent: bool
    quarantined: bool = False
    tags: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


def _pairs(given: object) -> object:
    """Policy tests write a map; pairs are a value that can be looked up by."""
    return tuple(sorted(given.items())) if isinstance(given, Mapping) else given


class ApprovalFacts(Model):
    """The approval that somebody wants to decide, as a policy sees it."""

    approval_id: str
    risk: Risk
    tool: str | None
    requested_by: str
    requested_by_kind: str
    owner: str | None = Field(default=None, description="The person for whom the requesting agent acts.")
    roles: tuple[str, ...] = Field(default=(), description="Roles that the open requirements name.")
    channels: tuple[Channel, ...] = Field(
        default=(), description="Channels that the open requirements accept; empty means that they name none."
    )
    people: tuple[str, ...] = Field(default=(), description="People whom the open requirements name.")
    delegates: tuple[str, ...] = Field(default=(), description="People to whom somebody handed their part.")
    works_here: bool = Field(
        default=False, description="The caller started the run, works in it, or acts for its owner."
    )
    amounts: Annotated[tuple[tuple[str, int], ...], BeforeValidator(_pairs)] = Field(
        default=(),
        description="Whole numbers of what is decided on, by name: a call's arguments, or what a step shows.",
    )


class Facts(Model):
    """Everything one decision may depend on. Absent is absent: nothing is defaulted to something permissive.

    ``resource_type`` and ``resource_id`` name the Cedar resource: ``Tool``, ``Template``, ``Workflow``, ``Approval``,
    ``Ledger``. ``tenant`` is the resource's tenant; the principal carries its own.
    """

    principal: Principal
    action: Action
    resource_type: Literal["Tool", "Template", "Workflow", "Approval", "Ledger"]
    resource_id: str
    tenant: str
    tool: ToolFacts | None = None
    approval: ApprovalFacts | None = None
    workflow_id: str | None = None
    workflow_live: bool = Field(
        default=False, description="There is such a workflow, of this tenant, and it has not ended."
    )
    workflow_owner: str | None = None
    workflow_started_by: str | None = Field(default=None, description="Who started it: the agent, or the person.")
    agent_invocation_id: str | None = None
    invocation_live: bool = Field(
        default=False,
        description="The invocation is of this workflow, granted to this principal, open and not expired.",
    )
    template: str | None = None
    step_id: str | None = None
    purpose: str | None = None
    case_id: str | None = None
    tool_allowed: bool = Field(default=False, description="The open step's allowed tools include this tool.")
    arguments_refused: str | None = Field(
        default=None, description="The rule of the open step that the arguments break, in words; never a value."
    )
    dry_run: bool = False
    calls_used: int = 0
    calls_budget: int = 0
    approvals: tuple[Approved, ...] = ()
    grant_id: str | None = Field(default=None, description="The live standing grant that covers this call, if any.")
    grant_given_by: str | None = Field(default=None, description="Who gave it; their own call it never covers.")
    channel: Channel | None = None
    verdict: str | None = Field(
        default=None, description="For approval.decide: approve, reject, edit, request_more_info."
    )
    signal_type: str | None = Field(default=None, description="The signal that is sent, or that starts the run.")
    signal_source: str | None = None
    schedule: str | None = Field(default=None, description="The schedule (template/name) that starts the run.")
    delegate_to: str | None = Field(default=None, description="For approval.delegate: who shall decide instead.")
    input: JsonObject | None = Field(default=None, description="The call's arguments, typed by the tool's schema.")


class Obligation(Model):
    """What a policy asks for. For ``require_approval``: ``role`` (any human if absent), ``approvers``, ``within`` seconds.

    ``redact`` names ``fields`` (JSON pointers into the arguments), ``dry_run`` lets nothing execute, ``rate_limit`` allows
    ``calls`` within ``within_seconds``.
    """

    name: str
    policy_id: str
    role: str | None = None
    approvers: int = 1
    within_seconds: int = 86_400
    channels: tuple[Channel, ...] = ()
    people: tuple[str, ...] = Field(default=(), description="For require_approval: only these people count.")
    agents: bool = Field(default=False, description="For require_approval: an agent's decision counts as well.")
    edit: bool = Field(default=True, description="For require_approval: whether a reviewer may change the call.")
    remind_seconds: int | None = Field(default=None, description="For require_approval: between reminders.")
    escalate_seconds: int | None = Field(default=None, description="For require_approval: when others are asked too.")
    escalate_role: str | None = None
    fields: tuple[str, ...] = ()
    calls: int | None = Field(default=None, description="For rate_limit: so many calls within ``within_seconds``.")
    reason: str | None = None


class Decision(Model):
    """The evaluator's answer. ``policy_ids`` determined it; ``reason`` is for a person or an agent to act on."""

    verdict: Verdict
    reason: str
    code: str = Field(description="A stable code: permitted, approval_required, or why it was denied.")
    policy_ids: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    policy_set_hash: str
    errors: tuple[str, ...] = ()
    next_step: str | None = None
