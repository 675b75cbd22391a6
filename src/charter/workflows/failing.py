"""When a step fails: it is tried again, passed over, put before a person, or the run fails with it, as its template says."""

from __future__ import annotations

from charter.model import events as ev
from charter.model.template import (
    UNDO,
    ActionStep,
    AgentStep,
    ApprovalStep,
    CallStep,
    ChildStep,
    Step,
    WaitStep,
)
from charter.model.times import later_ms
from charter.workflows import ending, gate_steps, phases, steps
from charter.workflows.draft import Draft


def fail_step(
    draft: Draft, step: Step, code: str, reason: str, *, attempted: bool = False, retry_after: int | None = None
) -> None:
    """The step failed; what follows is the step's ``on_failure``.

    ``attempted``: it is known how its attempt ended, so its ``retry`` may allow another. ``retry_after``: not before so many
    seconds, as the other side said.
    """
    if draft.state.ending is not None and not step.id.startswith(UNDO):
        steps.give_up(draft, step, code, reason)  # the run ends anyway
        return
    if (owner := _owner(draft, step)) is not None:
        fail_step(draft, owner, code, reason)
        return
    if isinstance(step, CallStep | ChildStep):
        withdraw_asked(draft, step)
    wait = _wait_before_next(draft, step) if attempted else None
    if wait is None and step.on_failure == "fail_workflow":
        steps.give_up(draft, step, code, reason)
        return
    if isinstance(step, AgentStep):
        _end_work(draft, step)
        phases.reset(draft, step)
    if wait is not None:
        again(draft, step, "retrying", max(wait, (retry_after or 0) * 1000), code=code, reason=reason)
    elif step.on_failure == "skip":
        steps.skip_step(draft, step, code, reason)
    else:
        ending.mark(draft, step, "review", code=code, reason=reason)


def _owner(draft: Draft, step: Step) -> AgentStep | None:
    """The agent step that fails in the place of its gate's question, where the run does not fail with it at once."""
    found = gate_steps.part(draft.given.template, step.id) if isinstance(step, ApprovalStep) else None
    return found[0] if found is not None and found[0].on_failure != "fail_workflow" else None


def again(draft: Draft, step: Step, status: str, wait_ms: int, **fields: object) -> None:
    """The next attempt is made after so many milliseconds; the time for all of them goes on."""
    timed = isinstance(step, ActionStep | WaitStep | ChildStep)
    timeout_at = draft.state.steps[step.id].timeout_at if timed else None
    ending.mark(draft, step, status, until=later_ms(draft.given.now, wait_ms), timeout_at=timeout_at, **fields)


def withdraw_asked(draft: Draft, step: Step) -> None:
    """What people were asked, or have allowed, about this attempt is over with it."""
    for approval_id, approval in list(draft.state.approvals.items()):
        request = approval.request
        if approval.open and request.step_id == step.id and request.agent_invocation_id is None:
            closed = ev.ApprovalClosed(
                approval_id=approval_id, status="withdrawn", reason="The step goes on without it."
            )
            draft.emit("APPROVAL_CLOSED", closed)


def _end_work(draft: Draft, step: AgentStep) -> None:
    """The agent can do nothing more under this attempt, and nothing that it asked for is allowed any more."""
    own = [item for item in draft.state.invocations.values() if item.step_id == step.id]
    for invocation in own:
        for approval_id, approval in list(draft.state.approvals.items()):
            if approval.open and approval.request.agent_invocation_id == invocation.agent_invocation_id:
                closed = ev.ApprovalClosed(approval_id=approval_id, status="withdrawn", reason="The step failed.")
                draft.emit("APPROVAL_CLOSED", closed)
        if invocation.status == "open":
            ending.end_invocation(draft, invocation.agent_invocation_id, "ended")


_TRIED_AGAIN = CallStep | ChildStep | AgentStep | ApprovalStep


def another_attempt(draft: Draft, step: CallStep | ChildStep | AgentStep | ApprovalStep) -> bool:
    """Whether its ``retry`` allows one more."""
    return step.retry is not None and draft.state.steps[step.id].attempt < step.retry.attempts


def _wait_before_next(draft: Draft, step: Step) -> int | None:
    if not isinstance(step, _TRIED_AGAIN) or step.retry is None or not another_attempt(draft, step):
        return None
    chance = draft.given.mint.per_mille() if step.retry.jitter_percent else 0
    return step.retry.wait_after(draft.state.steps[step.id].attempt, chance)
