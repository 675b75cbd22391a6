"""What no policy set can permit. The shipped policies deny these too, with better reasons; this holds if they are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from charter.model.outbound import SERVER
from charter.model.policy import Decision, Facts
from charter.model.principal import AGENT_APPROVER, person_key
from charter.model.signal import reserved


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One rule of the floor; ``broken_by`` tells whether a request breaks it."""

    id: str
    code: str
    reason: str
    next_step: str
    broken_by: Callable[[Facts], bool]


def _is_charter(facts: Facts) -> bool:
    """Charter runs a workflow's own ``action`` steps without an invocation; no token may claim to be it."""
    who = facts.principal
    return who.kind == "service" and who.id.startswith("charter:") and "charter" in who.roles


def _approver_agent(facts: Facts) -> bool:
    return facts.principal.kind == "agent" and AGENT_APPROVER in facts.principal.roles


def _own_action(facts: Facts) -> bool:
    """The same person asks and agrees: to one call, or by a standing grant to such calls."""
    if facts.grant_given_by is not None and facts.action == "tool.invoke":
        return person_key(facts.grant_given_by) == person_key(facts.principal.id)
    return (
        facts.action in ("approval.decide", "approval.delegate")
        and facts.approval is not None
        and person_key(facts.approval.requested_by) == person_key(facts.principal.id)
    )


GUARANTEES = (
    Guarantee(
        id="charter:tenants-do-not-meet",
        code="tenant_wall",
        reason="This belongs to another tenant.",
        next_step="Use a credential of the tenant that it belongs to.",
        broken_by=lambda facts: facts.principal.tenant != facts.tenant,
    ),
    Guarantee(
        id="charter:nothing-outside-a-workflow",
        code="workflow_required",
        reason="A tool runs only inside a live workflow.",
        next_step="Call start_workflow, then send its workflow_id and agent_invocation_id with the call.",
        broken_by=lambda facts: facts.action == "tool.invoke" and not (facts.workflow_id and facts.workflow_live),
    ),
    Guarantee(
        id="charter:nothing-without-an-invocation",
        code="invocation_required",
        reason="A tool runs only under the workflow's own grant to this caller for the open step.",
        next_step="Call get_workflow: it shows the open step and the invocation that belongs to it.",
        broken_by=lambda facts: facts.action == "tool.invoke" and not (facts.invocation_live or _is_charter(facts)),
    ),
    Guarantee(
        id="charter:own-tools-are-for-steps",
        code="not_for_agents",
        reason="Charter's own tools are called by workflows' steps alone.",
        next_step="Use a tool that your step allows; an operator adds an `external` step to the template.",
        broken_by=lambda facts: (
            facts.action == "tool.invoke"
            and facts.tool is not None
            and facts.tool.server == SERVER
            and not _is_charter(facts)
        ),
    ),
    Guarantee(
        id="charter:arguments-within-the-step",
        code="argument_not_allowed",
        reason="The arguments break a rule of the open step.",
        next_step="Call again with arguments within the rule; get_workflow shows the rules of the step.",
        broken_by=lambda facts: facts.action == "tool.invoke" and facts.arguments_refused is not None,
    ),
    Guarantee(
        id="charter:people-decide",
        code="not_a_person",
        reason="Only a person's credential can decide an approval or hand it on, give a standing grant or review a step; "
        f"an agent's may decide only with the role {AGENT_APPROVER}.",
        next_step="Wait for a person to decide; get_workflow shows who was asked.",
        broken_by=lambda facts: (
            facts.action in ("approval.decide", "approval.delegate", "grant.give", "step.review")
            and facts.principal.kind != "human"
            and not (facts.action == "approval.decide" and _approver_agent(facts))
        ),
    ),
    Guarantee(
        id="charter:no-agent-decides-on-its-own-work",
        code="self_approval",
        reason="An agent decides on nothing in a run that it works in, and on nothing of its own person's.",
        next_step="Somebody else who is eligible must decide.",
        broken_by=lambda facts: (
            facts.action == "approval.decide"
            and facts.principal.kind == "agent"
            and (facts.approval is None or facts.approval.works_here)
        ),
    ),
    Guarantee(
        id="charter:nobody-approves-their-own-action",
        code="self_approval",
        reason="Nobody decides on their own request.",
        next_step="Somebody else who is eligible must decide.",
        broken_by=_own_action,
    ),
    Guarantee(
        id="charter:nobody-speaks-for-charter",
        code="signal_reserved",
        reason="Signals of types workflow.* and approval.*, and sources urn:charter:*, are Charter's own.",
        next_step="Choose another type and source.",
        broken_by=lambda facts: (
            facts.action == "signal.send"
            and reserved(facts.signal_type or "", facts.signal_source or "")
            and not _is_charter(facts)
        ),
    ),
)


def broken(facts: Facts) -> Guarantee | None:
    """The first rule that this request breaks."""
    return next((guarantee for guarantee in GUARANTEES if guarantee.broken_by(facts)), None)


def deny(guarantee: Guarantee, facts: Facts, set_hash: str) -> Decision:
    """The denial that names the rule."""
    about = guarantee.code == "argument_not_allowed" and facts.arguments_refused
    return Decision(
        verdict="deny",
        reason=f"{about or guarantee.reason} (policy {guarantee.id})",
        code=guarantee.code,
        policy_ids=(guarantee.id,),
        policy_set_hash=set_hash,
        next_step=guarantee.next_step,
    )
