"""A failed run that an operator has go on: from the steps that failed, under its own template and record."""

from __future__ import annotations

from charter.errors import CharterError, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.template import AgentStep, ApprovalStep, ChildStep, Step
from charter.workflows import steps
from charter.workflows.approvals import permitted
from charter.workflows.draft import Draft


def retry(draft: Draft, command: cmd.RetryWorkflow) -> None:
    """Open the failed steps again; what was open beside them when the run failed, and ended with it, is opened too."""
    if not permitted(draft):
        return
    failed = [step for step in draft.given.template.steps if _status(draft, step) == "failed"]
    refusal = _refusal(draft, failed)
    if refusal is not None:
        draft.refuse("retry_workflow", refusal)
        return
    open_before = [step for step in draft.given.template.steps if _status(draft, step) == "open"]
    data = ev.WorkflowRetried(
        by=draft.given.principal.id, steps=tuple(step.id for step in failed), reason=command.reason
    )
    draft.emit("WORKFLOW_RETRIED", data)
    for step in (*failed, *(step for step in open_before if _is_lost(draft, step))):
        if draft.state.moving:
            steps.open_again(draft, step)
    steps.advance(draft)


def _status(draft: Draft, step: Step) -> str | None:
    found = draft.state.steps.get(step.id)
    return found.status if found else None


def _refusal(draft: Draft, failed: list[Step]) -> CharterError | None:
    state = draft.state
    if state.status != "failed":
        told = f"Workflow {state.workflow_id} is {state.status}, not failed."
        return Refused(told, code="not_failed", next_step="`charter workflows show` tells what it waits for.")
    if state.ending is not None:
        return Refused(
            "What it had done was undone when it failed.", code="cannot_retry", next_step="Start a new workflow."
        )
    if state.parent_workflow_id is not None:
        return Refused(
            f"It is a step's child, and {state.parent_workflow_id} has gone on from its failure.",
            code="cannot_retry",
            next_step="Retry that one: its step starts a new child.",
        )
    if not failed or any(not state.steps[step.id].attempt for step in failed):
        return Refused(
            "It did not fail in a step's work: what could not be evaluated has no value now either.",
            code="cannot_retry",
            next_step="Correct the template, and start a new workflow of the new version.",
        )
    return None


def _is_lost(draft: Draft, step: Step) -> bool:
    """True when what an open step waits for has ended with the run."""
    state = draft.state
    if isinstance(step, AgentStep):
        return not any(item.status == "open" and item.step_id == step.id for item in state.invocations.values())
    if isinstance(step, ApprovalStep):
        return not any(
            item.status == "pending" and item.request.step_id == step.id for item in state.approvals.values()
        )
    return isinstance(step, ChildStep) and state.steps[step.id].child_workflow_id not in state.children
