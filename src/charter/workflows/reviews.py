"""What operators say of a run: how a step that failed for good goes on, and whether the run is paused."""

from __future__ import annotations

from charter.errors import CharterError, Denied, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.template import ApprovalStep, ConditionStep, Step
from charter.workflows import steps
from charter.workflows.approvals import may
from charter.workflows.draft import Draft
from charter.workflows.state import StepState


def review(draft: Draft, command: cmd.ReviewStep) -> None:
    """Put a person's word on record and go on from it."""
    if not may(draft, "review_step"):
        return
    found = draft.state.steps.get(command.step_id, StepState())
    refusal = _refusal(draft, command, found)
    if refusal is not None:
        draft.refuse("review_step", refusal)
        return
    person = draft.given.principal
    draft.emit(
        "STEP_REVIEWED",
        ev.StepReviewed(
            step_id=command.step_id,
            resolution=command.resolution,
            reviewed_by=person.id,
            reviewed_by_kind=person.kind,
            comment=command.comment,
        ),
    )
    _go_on(draft, command, steps.step_named(draft.given.template, command.step_id), found)


def _refusal(draft: Draft, command: cmd.ReviewStep, found: StepState) -> CharterError | None:
    if draft.given.principal.kind != "human":
        return Denied("Only a person says how a failed step goes on.", code="not_a_person")
    if found.status != "review":
        return Refused(
            f"Step {command.step_id!r} does not wait for review: it is {found.status}.",
            code="not_in_review",
            next_step="`charter workflows show` tells what the run waits for.",
        )
    if command.resolution == "retry" and not found.attempt:
        return Refused(
            "What it was to open with has no value, and would have none again.",
            code="cannot_retry",
            next_step="Skip the step, supply its output, or let the run fail.",
        )
    return _not_for(steps.step_named(draft.given.template, command.step_id), command)


def _not_for(step: Step, command: cmd.ReviewStep) -> Refused | None:
    """What no operator can say of a step of its type."""
    if isinstance(step, ApprovalStep) and command.resolution == "supply":
        return Refused(
            "An operator does not answer for the people whom the step asks.",
            code="people_decide",
            next_step="Say retry, which asks them anew; skip, which leaves out all that needs their yes; or fail.",
        )
    if isinstance(step, ConditionStep) and command.resolution == "supply" and _truth(command.output) is None:
        return Refused(
            "A condition is true or false.", code="not_true_or_false", next_step="Supply true or false, as JSON."
        )
    return None


def _truth(output: object) -> bool | None:
    """``true`` or ``false``, alone or as the ``value`` of a condition's output."""
    value = output.get("value") if isinstance(output, dict) else output
    return value if isinstance(value, bool) else None


def _go_on(draft: Draft, command: cmd.ReviewStep, step: Step, found: StepState) -> None:
    code, reason = found.code or "step_failed", found.reason or ""
    if command.resolution == "retry":
        steps.open_again(draft, step)
        steps.advance(draft)
    elif command.resolution == "supply" and isinstance(step, ConditionStep):
        steps.take_branch(draft, step, value=_truth(command.output) is True)
        steps.advance(draft)
    elif command.resolution == "supply":
        steps.complete_step(draft, step, command.output)
    elif command.resolution == "skip":
        steps.skip_step(draft, step, code, reason)
    else:
        steps.give_up(draft, step, code, reason)


def being_undone(draft: Draft) -> Refused:
    """Its end is decided, and what was done is being undone."""
    return Refused(
        f"Workflow {draft.state.workflow_id} ends already: what it has done is being undone.",
        code="already_ending",
        next_step="`charter workflows show` tells how far it is; a step in review waits for an operator.",
    )


def hold(draft: Draft, command: cmd.PauseWorkflow | cmd.ResumeWorkflow) -> None:
    """Pause a run, or go on with it."""
    if not may(draft, command.kind):
        return
    if draft.state.ending is not None:
        draft.refuse(command.kind, being_undone(draft))
        return
    pause = isinstance(command, cmd.PauseWorkflow)
    if draft.state.moving != pause:
        told = "is paused already" if pause else "is not paused"
        draft.refuse(command.kind, Refused(f"Workflow {draft.state.workflow_id} {told}.", code="not_now"))
        return
    data = ev.WorkflowHeld(by=draft.given.principal.id, reason=command.reason)
    draft.emit("WORKFLOW_PAUSED" if pause else "WORKFLOW_RESUMED", data)
