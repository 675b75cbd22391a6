"""The steps of a gate that no template lists: ``STEP.gate.CHECK`` gathers evidence or asks, ``STEP.gate`` asks people.

They are ``action`` and ``approval`` steps like all others, so they take the same road; :func:`part` makes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from charter.model.phase import Check
from charter.model.template import ActionStep, AgentStep, ApprovalStep, Gate, Step, Template
from charter.workflows.draft import Draft
from charter.workflows.records import GateState, StepState
from charter.workflows.state import State


def gate_id(step_id: str) -> str:
    """The step that asks people to open the gate of this one."""
    return f"{step_id}.gate"


def check_id(step_id: str, check: str) -> str:
    """The step that gathers evidence, or asks the question, for this check."""
    return f"{step_id}.gate.{check}"


def part(template: Template, step_id: str) -> tuple[AgentStep, Step] | None:
    """The agent step whose gate has a step of this id, and that step; None when no gate has."""
    for step in template.steps:
        if isinstance(step, AgentStep) and step.gate is not None and step_id.startswith(gate_id(step.id)):
            for found in parts_of(step, step.gate):
                if found.id == step_id:
                    return step, found
    return None


def parts_of(step: AgentStep, gate: Gate) -> Iterator[Step]:
    """All steps of a gate."""
    for check in gate.checks:
        if (made := made_for(step, gate, check)) is not None:
            yield made
    if (approval := _approval(step, gate)) is not None:
        yield approval


def made_for(step: AgentStep, gate: Gate, check: Check) -> ActionStep | ApprovalStep | None:
    """The step that gathers the evidence of a check, or asks its question; None for one that is judged at once."""
    hidden = check_id(step.id, check.id)
    if check.evidence is not None:
        return ActionStep(
            id=hidden,
            type="action",
            tool=check.evidence.tool,
            arguments=check.evidence.arguments,
            reason=f"Evidence for check {check.id!r} of step {step.id!r}.",
            on_failure="skip",
        )
    if check.question is not None and gate.approval is not None:
        return gate.approval.model_copy(
            update={"id": hidden, "question": check.question, **_terms(gate, gate.approval)}
        )
    return None


def _approval(step: AgentStep, gate: Gate) -> ApprovalStep | None:
    if gate.approval is None:
        return None
    question = gate.approval.question or f"May step {step.title or step.id!r} end with what was handed in?"
    return gate.approval.model_copy(
        update={"id": gate_id(step.id), "question": question, **_terms(gate, gate.approval)}
    )


def _terms(gate: Gate, approval: ApprovalStep) -> dict[str, Any]:
    """What a no, and the end of the time, mean is the gate's to say, and none of the approval's own."""
    terms: dict[str, Any] = {"on_reject": "reject_workflow", "if_approved": (), "if_rejected": (), "edit": False}
    if approval.on_timeout != "escalate":
        terms["on_timeout"] = "reject"
    return terms if gate.timeout_seconds is None else {**terms, "expires_after_seconds": gate.timeout_seconds}


def scope_of(state: State, template: Template, step_id: str) -> dict[str, Any]:
    """What the expressions of a step may read; those of a gate read the artifacts as well."""
    scope: dict[str, Any] = state.scope()
    found = part(template, step_id)
    if found is not None:
        scope["artifacts"] = status_of(state, found[0].id).output
    return scope


def shown_of(draft: Draft, step: ApprovalStep, shown: object) -> object:
    """What people see of a gate: what the template says, else the artifacts; and what Charter has found."""
    found = part(draft.given.template, step.id)
    if found is None:
        return shown
    owner = found[0].id
    first = status_of(draft.state, owner).output if shown is None else shown
    out = dict(first) if isinstance(first, dict) else {"shown": first}
    for item in draft.state.gates.get(owner, GateState()).results:
        out[f"[{item.outcome}{'' if item.severity == 'blocking' else ', a warning'}] {item.check}"] = item.text()
    return out


def requester_of(draft: Draft, step: ApprovalStep) -> tuple[str, str]:
    """Who asks: whoever handed in the work; for other steps, who started the run."""
    found = part(draft.given.template, step.id)
    gate = draft.state.gates.get(found[0].id) if found is not None else None
    if gate is None:
        return draft.state.started_by, draft.state.started_by_kind
    return gate.handed_in_by, gate.handed_in_by_kind


def status_of(state: State, step_id: str) -> StepState:
    """How a step stands; new where nothing is known of it."""
    return state.steps.get(step_id, StepState())
