"""How runs end. Any end but completion first undoes what was done, the last step first, by governed calls like all others.

A step has been done when it is completed, or when its own call has succeeded although the step was given up. While nobody knows
what became of such a call, nothing is undone: it may still have to be undone first.
"""

from __future__ import annotations

from charter.model import events as ev
from charter.model.template import Step, compensation, undo_of
from charter.workflows import steps  # they call each other
from charter.workflows.draft import Draft

_OVER = frozenset({"completed", "skipped", "failed"})


def mark(draft: Draft, step: Step, status: str, **fields: object) -> None:
    """Put a step's new state on record."""
    draft.emit(
        "WORKFLOW_STEP",
        ev.WorkflowStep.model_validate({"step_id": step.id, "step_type": step.type, "status": status, **fields}),
    )


def end_invocation(draft: Draft, invocation_id: str, status: str) -> None:
    """Take a grant back."""
    invocation = draft.state.invocations[invocation_id]
    draft.emit(
        "AGENT_INVOKE",
        ev.AgentInvoke.model_validate(
            {
                "agent_invocation_id": invocation_id,
                "step_id": invocation.step_id,
                "status": status,
                "agent": invocation.agent,
            }
        ),
    )


def end(
    draft: Draft,
    event_type: str,
    *,
    output: object = None,
    code: str | None = None,
    reason: str | None = None,
) -> None:
    """End the run: what is open is closed first, so that nothing of it can be used any more, and what was done is undone."""
    if draft.state.ending is not None:
        go_on_undoing(draft)
        return
    for approval_id, approval in list(draft.state.approvals.items()):
        if approval.open:
            closed = ev.ApprovalClosed(approval_id=approval_id, status="withdrawn", reason="The workflow has ended.")
            draft.emit("APPROVAL_CLOSED", closed)
    for invocation in list(draft.state.invocations.values()):
        if invocation.status == "open":
            end_invocation(draft, invocation.agent_invocation_id, "ended")
    if event_type != "WORKFLOW_COMPLETED" and (_done(draft) or _unknown(draft)):
        started = ev.CompensationStarted.model_validate({"ending": event_type, "code": code, "reason": reason})
        draft.emit("COMPENSATION_STARTED", started)
        go_on_undoing(draft)
        return
    draft.emit(event_type, ev.WorkflowEnded(output=output, code=code, reason=reason))


def go_on_undoing(draft: Draft) -> None:
    """Undo the last step that was done and is not undone; end the run when there is none."""
    ending = draft.state.ending
    if ending is None or _unknown(draft):
        return
    undoing = _done(draft)
    for undo in undoing:
        found = draft.state.steps.get(undo.id)
        if found is None:
            steps.open_undo(draft, undo)
            return
        if found.status not in _OVER:
            return
    ended = {undo.id.partition(":")[2]: draft.state.steps[undo.id].status == "completed" for undo in undoing}
    draft.emit(
        ending.ending,
        ev.WorkflowEnded(
            code=ending.code,
            reason=ending.reason,
            compensated=tuple(key for key, undone in ended.items() if undone),
            not_compensated=tuple(key for key, undone in ended.items() if not undone),
        ),
    )


def _done(draft: Draft) -> list[Step]:
    """The steps that undo what was done, in the order in which they are to run."""
    state = draft.state
    done = [
        (state.steps[step.id].order, undo)
        for step in draft.given.template.steps
        if (undo := undo_of(draft.given.template, step)) is not None
        and step.id in state.steps
        and (state.steps[step.id].status == "completed" or state.steps[step.id].ran)
    ]
    return [undo for _, undo in sorted(done, key=lambda item: -item[0])]


def _unknown(draft: Draft) -> bool:
    """A call is under way, or in doubt, that would have to be undone."""
    undone = {step.id for step in draft.given.template.steps if compensation(step) is not None}
    return any(
        effect.invoke.agent_invocation_id is None
        and effect.invoke.step_id in undone
        and effect.status != "dead_lettered"  # a message that was given up is not undone
        for effect in draft.state.effects.values()
    )
