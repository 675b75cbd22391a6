"""Opening steps, and ending runs: what follows when a step has its outcome."""

from __future__ import annotations

from charter.errors import CharterError, Refused
from charter.model import events as ev
from charter.model.template import (
    UNDO,
    ActionStep,
    AgentStep,
    ApprovalStep,
    ChildStep,
    ConditionStep,
    NotificationStep,
    SignalStep,
    Step,
    Template,
    WaitStep,
    branches_of,
    undo_of,
)
from charter.model.times import later, rfc3339, unix_ms_of
from charter.workflows import (  # failing, phases and steps call each other
    asking,
    ending,
    expressions,
    failing,
    gate_steps,
    machine,
    phases,
    signals_out,
)
from charter.workflows.draft import Draft
from charter.workflows.records import InvocationState, StepState

NOT_AGREED = "not_agreed"
"""The code of a step that is skipped because an approval was that it needs."""


def advance(draft: Draft) -> None:
    """Open every step whose needs are met, until nothing moves; complete the run when all steps are done.

    Once the run's end is decided, what was done is undone instead.
    """
    if draft.state.ending is not None and draft.state.live:
        ending.go_on_undoing(draft)
        return
    template = draft.given.template
    undoers = template.undoers
    way = [index for index, step in enumerate(template.steps) if step.id not in undoers]
    moved = True
    while moved and draft.state.moving:
        moved = any(_consider(draft, template, index) for index in way)
    if draft.state.moving and all(_status(draft, template.steps[index].id) in machine.STEP_DONE for index in way):
        _complete(draft, template)


def _status(draft: Draft, step_id: str) -> str:
    return draft.state.steps.get(step_id, StepState()).status


def _consider(draft: Draft, template: Template, index: int) -> bool:
    step = template.steps[index]
    if isinstance(step, AgentStep) and _status(draft, step.id) == "submitted":
        return phases.go_on(draft, step)
    if not draft.state.moving or _status(draft, step.id) != "pending":
        return False
    if not all(_lets_go_on(draft, template, need) for need in template.needs_of(index)):
        return False
    if (left_out := _left_out(draft, template, step)) is not None:
        ending.mark(draft, step, "skipped", reason=left_out)
        return True
    if (missing := _not_agreed(draft, template, index)) is not None:
        ending.mark(draft, step, "skipped", code=NOT_AGREED, reason=f"It needs {missing!r}, on which nobody agreed.")
        return True
    try:
        wanted = step.condition is None or expressions.condition(step.condition, draft.state.scope())
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return True
    if not wanted:
        ending.mark(draft, step, "skipped", reason=f"Its condition {step.condition!r} is false.")
        return True
    if isinstance(step, WaitStep):
        _wait(draft, step)
        return True
    ending.mark(draft, step, "opened", timeout_at=_deadline(draft, step), child_workflow_id=_child(draft, step))
    _open(draft, step)
    return True


def _not_agreed(draft: Draft, template: Template, index: int) -> str | None:
    """The approval without which this step does not run: one that failed and was skipped, or a step that was left out for it.
    Nobody's answer is no yes, so whatever needs the yes, at whatever distance, is left out as well."""
    for need in template.needs_of(index):
        found = draft.state.steps.get(need, StepState())
        failed = found.code is not None and isinstance(step_named(template, need), ApprovalStep)
        if found.status == "skipped" and (failed or found.code == NOT_AGREED):
            return need
    return None


def _lets_go_on(draft: Draft, template: Template, need: str) -> bool:
    """Whether what needs this step may open: it is done, or a message on its way that nobody waits for."""
    status = _status(draft, need)
    if status in machine.STEP_DONE:
        return True
    step = step_named(template, need)
    return isinstance(step, NotificationStep) and not step.wait and status != "pending"


def _wait(draft: Draft, step: WaitStep) -> None:
    try:
        fields = _wait_for(draft, step)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    ending.mark(draft, step, "opened", **fields)


def _wait_for(draft: Draft, step: WaitStep) -> dict[str, str | None]:
    """What a wait that opens now is for, as its event tells it."""
    if step.signal is not None:
        return {"waits_for": step.signal.type, "timeout_at": _deadline(draft, step)}
    if step.poll is not None:
        return {"polls": step.poll.tool, "timeout_at": _deadline(draft, step)}
    return {"until": _end_of(draft, step)}


def _deadline(draft: Draft, step: Step) -> str | None:
    """When a step that opens now is given up."""
    limit = step.timeout_seconds if isinstance(step, ActionStep | WaitStep | ChildStep) else None
    return None if limit is None else later(draft.given.now, limit)


def _child(draft: Draft, step: Step) -> str | None:
    """The id of the run that the step starts: on record before there is one, so that it is started once."""
    return draft.given.mint.new("workflow") if isinstance(step, ChildStep) else None


def _end_of(draft: Draft, step: WaitStep) -> str:
    if step.until is None:
        return later(draft.given.now, step.seconds or 0)
    value = expressions.render(step.until, draft.state.scope())
    try:
        return rfc3339(unix_ms_of(value))
    except (TypeError, ValueError, OverflowError):
        raise expressions.ExpressionError(
            f"{step.until!r} gave {expressions.as_text(value)[:80]!r} ({type(value).__name__}), which is no time.",
            next_step="Give an RFC 3339 text with an offset, such as 2027-01-31T09:00:00Z.",
        ) from None


def timer(draft: Draft, step: Step) -> None:
    """The time that the step waited for has come, perhaps long ago: it goes on, once."""
    found = draft.state.steps[step.id]
    if found.timer == found.timeout_at and isinstance(step, ActionStep | WaitStep | ChildStep):
        timed_out(draft, step, *_what_did_not_come(found))
    elif found.status in ("retrying", "polling"):
        reopen(draft, step)
    elif found.status == "awaiting":
        failing.fail_step(draft, step, "callback_timeout", f"It was not called back by {found.timeout_at}.")
    elif isinstance(step, AgentStep):
        phases.timed_out(draft, step)
    else:
        complete_step(draft, step, {"until": found.until, "ended_at": draft.given.now})


def _what_did_not_come(found: StepState) -> tuple[str, str]:
    if found.waits_for is not None:
        return "wait_timeout", f"No signal of type {found.waits_for!r} that matches came by {found.timeout_at}."
    if found.polls is not None:
        return "wait_timeout", f"{found.polls} did not answer as hoped by {found.timeout_at}."
    return "step_timeout", f"It was not done by {found.timeout_at}."


def timed_out(draft: Draft, step: ActionStep | WaitStep | ChildStep, code: str, reason: str) -> None:
    """Its time, or the number of its tries, is used up. A call that runs meanwhile is told by its own outcome."""
    failing.withdraw_asked(draft, step)
    if step.on_timeout == "skip":
        skip_step(draft, step, code, reason)
    elif step.on_timeout == "fail":
        failing.fail_step(draft, step, code, reason)
    else:
        reject_step(draft, step, reason, status="expired", code=code)


def _left_out(draft: Draft, template: Template, step: Step) -> str | None:
    """Why the step is not in the branch that a condition took, or None: it is skipped in its turn, so that a join after it
    still waits for all that came before."""
    for other in template.steps:
        on_yes, on_no = branches_of(other)
        if step.id not in (*on_yes, *on_no):
            continue
        decided = draft.state.steps.get(other.id, StepState())
        if decided.status != "completed":
            return f"It is in a branch of {other.id!r}, which took none: it was {decided.status}."
        output = decided.output if isinstance(decided.output, dict) else {}
        if step.id in output.get("left_out", ()):
            if not isinstance(other, ConditionStep):
                return f"It is in the other branch: the decision of {other.id!r} is {output['decision']!r}."
            value = "true" if output["value"] else "false"
            return f"It is in the other branch: {other.id!r} ({other.expression}) is {value}."
    return None


def _open(draft: Draft, step: Step) -> None:
    if isinstance(step, AgentStep):
        grant(draft, step)
    elif isinstance(step, ApprovalStep):
        ask(draft, step)
    elif isinstance(step, ConditionStep):
        _branch(draft, step)
    elif isinstance(step, SignalStep):
        _send(draft, step)


def _send(draft: Draft, step: SignalStep) -> None:
    try:
        said = signals_out.said(step, draft.state.scope())
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    draft.emit("SIGNAL_SENT", said)
    complete_step(draft, step, said.model_dump(mode="json", exclude={"step_id"}))


def _branch(draft: Draft, step: ConditionStep) -> None:
    try:
        value = expressions.condition(step.expression, draft.state.scope())
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    take_branch(draft, step, value=value)


def take_branch(draft: Draft, step: ConditionStep, *, value: bool) -> None:
    """The condition is true or false, as was found or a person said."""
    left_out = step.if_false if value else step.if_true
    output = {"value": value, "branch": "if_true" if value else "if_false", "left_out": list(left_out)}
    ending.mark(draft, step, "completed", output=output)


def grant(draft: Draft, step: AgentStep, last: InvocationState | None = None) -> None:
    """An invocation for the step; after ``last`` with what that one had left."""
    given = draft.given
    try:
        expressions.render(step.instructions, draft.state.scope())  # as views.context will show them
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    agent, calls, until = step.agent or draft.state.started_by, step.calls, later(given.now, step.expires_after_seconds)
    if last is not None:
        agent, calls, until = phases.left(last, given.now)
    draft.emit(
        "AGENT_INVOKE",
        ev.AgentInvoke(
            agent_invocation_id=given.mint.new("invocation"),
            step_id=step.id,
            status="granted",
            agent=agent,
            allowed_tools=step.allowed_tools,
            forbidden_tools=step.forbidden_tools,
            argument_rules=step.argument_rules,
            calls=calls,
            expires_at=until,
        ),
    )


def ask(draft: Draft, step: ApprovalStep) -> None:
    """Put a step's question to people."""
    try:
        request = asking.request_of(draft, step)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    draft.emit("APPROVAL_REQUESTED", ev.ApprovalRequested(request=request))


def _complete(draft: Draft, template: Template) -> None:
    try:
        output = expressions.render(template.output, draft.state.scope())
    except CharterError as error:
        ending.end(draft, "WORKFLOW_FAILED", code=error.error_code, reason=f"The template's output: {error.message}")
        return
    ending.end(draft, "WORKFLOW_COMPLETED", output=output)


def await_callback(draft: Draft, step: Step, output: object, timeout_at: str) -> None:
    """The step's request was answered; it goes on when the other side calls back."""
    ending.mark(draft, step, "awaiting", output=output, timeout_at=timeout_at)


def complete_step(draft: Draft, step: Step, output: object) -> None:
    """The step is done; go on."""
    ending.mark(draft, step, "completed", output=output)
    advance(draft)


def reopen(draft: Draft, step: Step) -> None:
    """One attempt more, within the time that is left."""
    ending.mark(
        draft,
        step,
        "reopened",
        timeout_at=draft.state.steps[step.id].timeout_at,
        child_workflow_id=_child(draft, step),
    )
    if isinstance(step, AgentStep):
        grant(draft, step)
    elif isinstance(step, ApprovalStep):
        ask(draft, step)


def open_again(draft: Draft, step: Step) -> None:
    """The step from its beginning, within a time of its own: its run had failed and was retried, or a person said so."""
    fields: dict[str, str | None] = {"timeout_at": _deadline(draft, step), "child_workflow_id": _child(draft, step)}
    problem = None
    try:
        fields |= _wait_for(draft, step) if isinstance(step, WaitStep) else {}
    except CharterError as error:
        problem = error
    ending.mark(draft, step, "reopened", **fields)
    if problem is not None:
        failing.fail_step(draft, step, problem.error_code, problem.message)
    else:
        _open(draft, step)


def open_undo(draft: Draft, undo: Step) -> None:
    """The next step to be undone: its call is made, its child is started, or an agent is given the work."""
    ending.mark(draft, undo, "opened", child_workflow_id=_child(draft, undo))
    _open(draft, undo)


def skip_step(draft: Draft, step: Step, code: str, reason: str) -> None:
    """Go on without it."""
    ending.mark(draft, step, "skipped", code=code, reason=reason)
    advance(draft)


def give_up(draft: Draft, step: Step, code: str, reason: str) -> None:
    """The step failed, and so has the run."""
    ending.mark(draft, step, "failed", code=code, reason=reason)
    ending.end(draft, "WORKFLOW_FAILED", code=code, reason=f"Step {step.id!r} failed: {reason}")


def reject_step(draft: Draft, step: Step, reason: str, status: str = "rejected", code: str | None = None) -> None:
    """People said no, or nobody answered in time: the run ends as rejected; the undoing of a step waits for another person."""
    code = code or f"approval_{status}"
    if draft.state.ending is None and phases.said_no(draft, step, reason, status, code):
        return
    if draft.state.ending is not None:
        failing.fail_step(draft, step, code, reason)
        return
    ending.mark(draft, step, status, code=code, reason=reason)
    ending.end(draft, "WORKFLOW_REJECTED", code=code, reason=f"Step {step.id!r}: {reason}")


def paused() -> Refused:
    """An operator holds the run."""
    return Refused("The workflow is paused.", code="workflow_paused", next_step="Wait until an operator resumes it.")


def step_named(template: Template, step_id: str) -> Step:
    """The step of this id, those that undo others and those of gates included. ``KeyError`` when there is none."""
    for step in template.steps:
        if step.id == step_id:
            return step
        if step_id.startswith(UNDO) and (undo := undo_of(template, step)) is not None and undo.id == step_id:
            return undo
    if (found := gate_steps.part(template, step_id)) is not None:
        return found[1]
    raise KeyError(step_id)
