"""A wait for what a tool answers: the workflow asks it, by governed calls of its own, until the answer is what it waits for."""

from __future__ import annotations

from charter.errors import CharterError
from charter.model.template import WaitStep
from charter.workflows import expressions, failing, steps
from charter.workflows.draft import Draft


def answered(draft: Draft, step: WaitStep, result: object) -> None:
    """The tool answered: the wait is over, or the tool is asked again. An ``until`` without a value fails the step."""
    if step.poll is None:
        return
    try:
        over = expressions.condition(step.poll.until, {**draft.state.scope(), "result": result})
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    if over:
        polls = draft.state.steps[step.id].attempt
        steps.complete_step(draft, step, {"result": result, "polls": polls})
    else:
        go_on(draft, step, f"{step.poll.until!r} is false.")


def go_on(draft: Draft, step: WaitStep, reason: str) -> None:
    """Not yet, or no answer at all: once more after its pause, unless that was the last time."""
    if step.poll is None:
        return
    made = draft.state.steps[step.id].attempt
    if made >= step.poll.attempts:
        steps.timed_out(
            draft, step, "polls_used_up", f"{step.poll.tool} was asked {made} times; the last time: {reason}"
        )
    else:
        failing.again(draft, step, "polling", step.poll.every_seconds * 1000, reason=reason)
