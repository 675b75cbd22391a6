"""What people are asked: one exact call, or an ``approval`` step's question with what it shows, bound by a digest."""

from __future__ import annotations

from charter.errors import InvalidInput
from charter.model import events as ev
from charter.model.approval import ApprovalRequest, Escalation, ShownField
from charter.model.base import Json, JsonObject
from charter.model.digests import step_digest
from charter.model.plain_text import one_line, plain
from charter.model.policy import Obligation
from charter.model.template import ApprovalStep
from charter.model.times import later
from charter.workflows import expressions, gate_steps, quorum
from charter.workflows.draft import Call, Draft

_LARGEST = 2**63 - 1


def request_of(draft: Draft, step: ApprovalStep) -> ApprovalRequest:
    """The request for this step now. Raises ``CharterError`` where something in it has no value."""
    given, state = draft.given, draft.state
    scope = gate_steps.scope_of(state, given.template, step.id)
    requested_by, requested_by_kind = gate_steps.requester_of(draft, step)
    question = expressions.as_text(expressions.render(step.question, scope))
    show = gate_steps.shown_of(draft, step, expressions.render(step.show, scope))
    request = ApprovalRequest(
        approval_id=given.mint.new("approval"),
        workflow_id=state.workflow_id,
        step_id=step.id,
        risk=step.risk,
        digest="",
        reason=question,
        dry_run=state.dry_run,
        asked_because=f"Step {step.id!r} of {state.template} asks people to decide.",
        policy_set_hash=given.decision.policy_set_hash if given.decision else "",
        requirements=step.requirements,
        requested_by=requested_by,
        requested_by_kind=requested_by_kind,
        owner=state.owner,
        requested_at=given.now,
        expires_at=later(given.now, step.expires_after_seconds),
        allow_edit=step.edit,
        in_sequence=step.order == "sequence",
        remind_after_seconds=step.remind_after_seconds,
        escalations=step.escalations,
        separation=given.template.separation_of_duties,
        distinct_from=step.distinct_from,
    )
    return showing(draft, step, request, show)


def request_for_call(draft: Draft, call: Call, made: ev.ProposalMade) -> ApprovalRequest:
    """The request for one exact call, on the terms of the policies that ask. For a workflow's own call the template's
    separation of duties holds as for its steps; what an agent proposes is the policies' alone."""
    given = draft.given
    asking = [item for item in call.decision.obligations if item.name == "require_approval"]
    reminders = [item.remind_seconds for item in asking if item.remind_seconds is not None]
    own_step = made.agent_invocation_id is None
    lasts = min((item.within_seconds for item in asking), default=86_400)
    return ApprovalRequest(
        approval_id=given.mint.new("approval"),
        workflow_id=draft.state.workflow_id,
        step_id=made.step_id,
        agent_invocation_id=made.agent_invocation_id,
        proposal_id=made.proposal_id,
        tool=made.tool,
        risk=call.manifest.risk,
        digest=made.digest,
        reason=made.reason,
        dry_run=draft.state.dry_run,
        asked_because=call.decision.reason,
        policy_ids=tuple(item.policy_id for item in asking),
        policy_set_hash=call.decision.policy_set_hash,
        requirements=quorum.requirements_of(call.decision),
        shown=call.shown,
        preview=call.preview,
        requested_by=made.proposed_by.id,
        requested_by_kind=made.proposed_by.kind,
        owner=draft.state.owner,
        requested_at=given.now,
        expires_at=later(given.now, lasts),
        allow_edit=not call.sensitive and all(item.edit for item in asking),
        remind_after_seconds=min(reminders, default=None),
        escalations=_escalations(asking, lasts),
        separation=given.template.separation_of_duties if own_step else "none",
    )


def _escalations(asking: list[Obligation], lasts: int) -> tuple[Escalation, ...]:
    """Where one policy alone asks: with several, the approval of those to whom one escalates would not meet the others."""
    if len(asking) != 1 or asking[0].escalate_seconds is None or asking[0].escalate_seconds >= lasts:
        return ()
    item = asking[0]
    terms = {"role": item.escalate_role, "after_seconds": item.escalate_seconds, "policy_id": item.policy_id}
    return (Escalation.model_validate({**terms, "channels": item.channels, "people_only": not item.agents}),)


def revised(draft: Draft, step: ApprovalStep, request: ApprovalRequest, values: JsonObject | None) -> ApprovalRequest:
    """The next revision of a request, with other values under the same labels. Raises ``InvalidInput``."""
    old = request.values
    if values is None or not isinstance(old, dict) or set(values) != set(old):
        labels = ", ".join(old) if isinstance(old, dict) else "none"
        raise InvalidInput(
            "An edit of what a step shows has exactly its labels.",
            code="edit_keeps_labels",
            next_step=f"Send a JSON object with these labels: {labels}.",
        )
    given = draft.given
    changes = {
        "approval_id": given.mint.new("approval"),
        "requested_at": given.now,
        "expires_at": later(given.now, step.expires_after_seconds),
        "revision": request.revision + 1,
        "replaces": request.approval_id,
    }
    return showing(draft, step, request.model_copy(update=changes), values)


def showing(draft: Draft, step: ApprovalStep, request: ApprovalRequest, show: Json) -> ApprovalRequest:
    """The request with what it shows, and the digest that binds the answer to it."""
    state = draft.state
    if step.edit and not isinstance(show, dict):
        raise InvalidInput(
            f"`show` of step {step.id!r} gave {type(show).__name__}; what a reviewer may edit is a map.",
            code="show_not_a_map",
        )
    return request.model_copy(
        update={
            "shown": _shown(show),
            "values": show if step.edit else None,
            "amounts": {label: _amount(label, show[label]) for label in step.amounts},
            "digest": step_digest(
                tenant=state.tenant,
                workflow_id=state.workflow_id,
                step_id=step.id,
                question=request.reason,
                show=show,
            ),
        }
    )


def _amount(label: str, value: object) -> int:
    """A whole number, and nothing that would have to be read as one: an amount that is a text is no amount."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _LARGEST:
        raise InvalidInput(
            f"The amount {label!r} is no whole number: it came as {type(value).__name__}.",
            code="amount_invalid",
            next_step="Give a whole number, in the smallest unit.",
        )
    return value


def _shown(show: object) -> tuple[ShownField, ...]:
    items = show.items() if isinstance(show, dict) else [("shown", show)] if show is not None else []
    return tuple(ShownField(label=one_line(str(key)), value=plain(expressions.as_text(value))) for key, value in items)
