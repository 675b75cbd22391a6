"""Agent steps as phases: work that is handed in, the gate that is checked, and the ways back.

A gate's evidence is gathered, and its people are asked, by steps that no template lists: see ``gate_steps``.
"""

from __future__ import annotations

from typing import Any

from charter.errors import CharterError, Refused
from charter.model import events as ev
from charter.model.phase import Check, CheckResult, GateChecked, GoBack, PhaseWentBack
from charter.model.template import AgentStep, ApprovalStep, Gate, Step, Template
from charter.model.times import later, unix_ms_of
from charter.workflows import ending, expressions, failing, machine, steps
from charter.workflows.draft import Draft
from charter.workflows.gate_steps import check_id, gate_id, made_for, part, parts_of, status_of
from charter.workflows.records import GateState, InvocationState, StepState

# -- an invocation for the first to claim it


def claim(draft: Draft, invocation_id: str | None) -> None:
    """The first agent that uses an invocation that is for any of them has it from then on."""
    found = draft.state.invocations.get(invocation_id or "")
    if found is not None and found.agent == "*" and found.status == "open":
        draft.emit(
            "AGENT_INVOKE",
            ev.AgentInvoke(
                agent_invocation_id=found.agent_invocation_id,
                step_id=found.step_id,
                status="claimed",
                agent=draft.given.principal.id,
            ),
        )


# -- handing in


def hand_in(draft: Draft, step: AgentStep, invocation: InvocationState, output: object) -> None:
    """The agent says that it is done: what can be judged at once is; the rest waits with the agent kept out."""
    gate = step.gate
    if gate is None:
        _end_work(draft, invocation)
        passed(draft, step, output)
        return
    running = (item.invoke.agent_invocation_id for item in draft.state.effects.values())
    if invocation.agent_invocation_id in running:
        still = "A call of this invocation is still running, so its work cannot be judged."
        draft.refuse(
            "complete_step", Refused(still, code="calls_running", next_step="Wait for its result, and try again.")
        )
        return
    attempt = draft.state.gates.get(step.id, GateState()).attempts + 1
    results = tuple(_judged(draft, step, check, output) for check in gate.checks if check.kind in _AT_ONCE)
    blocking = [item for item in results if item.blocks]
    if not blocking:
        _end_work(draft, invocation)
        limit = gate.timeout_seconds
        until = None if limit is None else later(draft.given.now, limit)
        ending.mark(draft, step, "submitted", output=output, timeout_at=until)
        waits = any(check.kind not in _AT_ONCE for check in gate.checks) or gate.approval is not None
        _record(draft, step, results, "waiting" if waits else "open", attempt=attempt)
        go_on(draft, step)
        return
    _record(draft, step, results, "blocked", attempt=attempt)
    try:
        back = _way_back(draft, step, "blocked", output)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    if back is not None or attempt >= gate.attempts:
        _end_work(draft, invocation)
        _shut(draft, step, back, [item.text() for item in blocking])
        return
    draft.error = Refused(
        f"The gate of step {step.id!r} stays shut: {'; '.join(item.text() for item in blocking)}",
        code="gate_blocked",
        next_step=f"Mend what the checks say and call complete_step again; {gate.attempts - attempt} tries are left.",
        detail={"checks": [item.model_dump(mode="json") for item in results]},
    )


_AT_ONCE = ("expression", "schema")


def _end_work(draft: Draft, invocation: InvocationState) -> None:
    for approval_id, approval in list(draft.state.approvals.items()):
        if approval.request.agent_invocation_id == invocation.agent_invocation_id and approval.open:
            closed = ev.ApprovalClosed(approval_id=approval_id, status="withdrawn", reason="The step was completed.")
            draft.emit("APPROVAL_CLOSED", closed)
    ending.end_invocation(draft, invocation.agent_invocation_id, "ended")


def _record(draft: Draft, step: AgentStep, results: tuple[CheckResult, ...], outcome: str, **more: Any) -> None:
    before = draft.state.gates.get(step.id, GateState())
    who = draft.given.principal if "attempt" in more else None
    draft.emit(
        "GATE_CHECKED",
        GateChecked.model_validate(
            {
                "step_id": step.id,
                "attempt": before.attempts,
                "outcome": outcome,
                "results": results,
                "handed_in_by": who.id if who else before.handed_in_by,
                "handed_in_by_kind": who.kind if who else before.handed_in_by_kind,
                **more,
            }
        ),
    )


def _judged(draft: Draft, step: AgentStep, check: Check, output: object, evidence: object = None) -> CheckResult:
    if check.expression is None:
        problems = draft.given.schema_problems.get(check.id, ())
        return _result(check, "failed" if problems else "passed", "; ".join(problems))
    scope = {**draft.state.scope(), "artifacts": output, "params": check.params, "evidence": evidence}
    try:
        value = expressions.condition(check.expression, scope)
    except CharterError as error:
        return _result(check, "error", error.message)
    return _result(check, "passed" if value else "failed", "" if value else f"{check.expression} is false.")


def _result(check: Check, outcome: str, detail: str = "") -> CheckResult:
    return CheckResult.model_validate(
        {
            "check": check.id,
            "kind": check.kind,
            "severity": check.severity,
            "outcome": outcome,
            "message": check.message,
            "detail": detail[:1000],
        }
    )


# -- while the agent is kept out


def go_on(draft: Draft, step: AgentStep) -> bool:
    """Take a gate as far as it goes: gather evidence, judge it, ask people, judge their answers. True when anything moved."""
    gate, before = step.gate, len(draft.events)
    if gate is not None and draft.state.moving and status_of(draft.state, step.id).status == "submitted":
        _evidence(draft, step, gate)
    return len(draft.events) > before


def _evidence(draft: Draft, step: AgentStep, gate: Gate) -> None:
    checks = [check for check in gate.checks if check.kind == "evidence"]
    for check in checks:
        if status_of(draft.state, check_id(step.id, check.id)).status == "pending" and (
            made := made_for(step, gate, check)
        ):
            ending.mark(draft, made, "opened")
    found = {check.id: status_of(draft.state, check_id(step.id, check.id)) for check in checks}
    if not all(item.status in machine.STEP_DONE for item in found.values()):
        return
    known = {item.check for item in draft.state.gates[step.id].results}
    new = tuple(_of_evidence(draft, step, check, found[check.id]) for check in checks if check.id not in known)
    if any(item.blocks for item in new):
        _blocked(draft, step, gate, new)
        return
    if new:
        _record(draft, step, new, "open" if gate.approval is None else "waiting")
    if gate.approval is None:
        passed(draft, step, status_of(draft.state, step.id).output)
    else:
        _people(draft, step, gate)


def _of_evidence(draft: Draft, step: AgentStep, check: Check, found: StepState) -> CheckResult:
    if found.status != "completed":
        return _result(check, "error", f"The evidence could not be gathered: {found.reason}")
    return _judged(draft, step, check, status_of(draft.state, step.id).output, found.output)


def _people(draft: Draft, step: AgentStep, gate: Gate) -> None:
    asked = [made for made in parts_of(step, gate) if isinstance(made, ApprovalStep)]
    for made in asked:
        if status_of(draft.state, made.id).status == "pending":
            ending.mark(draft, made, "opened")
            steps.ask(draft, made)
            if status_of(draft.state, step.id).status != "submitted" or not draft.state.moving:
                return
    answers = {made.id: status_of(draft.state, made.id) for made in asked}
    if any(item.code == "approval_expired" for item in answers.values()):
        timed_out(draft, step)
        return
    questions = [check for check in gate.checks if check.question is not None]
    results = tuple(
        _answered(check, found) for check in questions if (found := answers[check_id(step.id, check.id)]).output
    )
    refused = answers[gate_id(step.id)]
    if any(item.blocks for item in results):
        _blocked(draft, step, gate, results)
    elif refused.status == "skipped":
        _refused(draft, step, gate, results, refused.reason or "People said no.")
    elif all(item.status in machine.STEP_DONE for item in answers.values()):
        _record(draft, step, results, "open")
        passed(draft, step, status_of(draft.state, step.id).output)


def _answered(check: Check, found: StepState) -> CheckResult:
    said = f"{found.output['decided_by']} said {'yes' if found.output['decision'] == 'approve' else 'no'}"
    comment = found.output.get("comment")
    passed_ = found.output["decision"] == "approve"
    return _result(check, "passed" if passed_ else "failed", f"{said}: {comment}" if comment else f"{said}.")


def said_no(draft: Draft, hidden: Step, reason: str, status: str, code: str) -> bool:
    """True when ``hidden`` is a gate's, whose rules then say what a no, or no answer in time, means."""
    found = part(draft.given.template, hidden.id)
    if found is None:
        return False
    person = draft.given.principal.id
    output = {"decision": "reject", "decided_by": person, "comment": reason} if status == "rejected" else None
    ending.mark(draft, hidden, "skipped", output=output, reason=reason, code=code)
    steps.advance(draft)
    return True


# -- how it ends


def passed(draft: Draft, step: AgentStep, output: object) -> None:
    """The gate is open, or there is none: the step is done, unless a way back applies."""
    try:
        back = _way_back(draft, step, "passed", output)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    if back is not None:
        _go_back(draft, step, back, [f"{back.when} is true."])
    else:
        steps.complete_step(draft, step, None if step.gate is not None else output)


def _blocked(draft: Draft, step: AgentStep, gate: Gate, results: tuple[CheckResult, ...]) -> None:
    why = [item.text() for item in results if item.blocks]
    _record(draft, step, results, "blocked", returned=why)
    try:
        back = _way_back(draft, step, "blocked", status_of(draft.state, step.id).output)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    if back is None and draft.state.gates[step.id].attempts < gate.attempts:
        _return(draft, step)
    else:
        _shut(draft, step, back, why)


def _refused(draft: Draft, step: AgentStep, gate: Gate, results: tuple[CheckResult, ...], reason: str) -> None:
    _record(draft, step, results, "blocked", returned=[reason])
    try:
        back = _way_back(draft, step, "rejected", status_of(draft.state, step.id).output)
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    if back is not None:
        _go_back(draft, step, back, [reason])
    elif gate.on_reject == "reject":
        reset(draft, step)
        steps.reject_step(draft, step, reason)
    elif draft.state.gates[step.id].attempts < gate.attempts:
        _return(draft, step)
    else:
        _shut(draft, step, None, [reason])


def _shut(draft: Draft, step: AgentStep, back: GoBack | None, why: list[str]) -> None:
    if back is not None:
        _go_back(draft, step, back, why)
        return
    reset(draft, step)
    failing.fail_step(
        draft, step, "gate_blocked", f"Its gate stayed shut at the last try: {'; '.join(why)}"[:1000], attempted=True
    )


def timed_out(draft: Draft, step: AgentStep) -> None:
    """The gate did not open in time."""
    gate = step.gate
    what = gate.on_timeout if gate is not None else "reject"
    reason = "Its gate did not open in time."
    reset(draft, step)
    if what == "return" and gate is not None and draft.state.gates[step.id].attempts < gate.attempts:
        _record(draft, step, (), "blocked", returned=[reason])
        _return(draft, step)
    elif what == "human_review":
        ending.mark(draft, step, "review", code="gate_timeout", reason=reason)
    elif what == "reject":
        steps.reject_step(draft, step, reason, status="expired", code="gate_timeout")
    else:
        failing.fail_step(draft, step, "gate_timeout", reason, attempted=True)


def reset(draft: Draft, step: AgentStep) -> None:
    """Nothing of the gate is open any more, and its steps are new."""
    if step.gate is None:
        return
    for made in parts_of(step, step.gate):
        for approval_id, approval in list(draft.state.approvals.items()):
            if approval.open and approval.request.step_id == made.id:
                closed = ev.ApprovalClosed(approval_id=approval_id, status="withdrawn", reason="The gate is closed.")
                draft.emit("APPROVAL_CLOSED", closed)
        if status_of(draft.state, made.id).status != "pending":
            ending.mark(draft, made, "again")


def _return(draft: Draft, step: AgentStep) -> None:
    """The agent goes on, with the calls and the time that it had left."""
    reset(draft, step)
    ending.mark(draft, step, "returned")
    steps.grant(draft, step, last=_last(draft, step))


def _last(draft: Draft, step: AgentStep) -> InvocationState | None:
    own = (item for item in reversed(draft.state.invocations.values()) if item.step_id == step.id)
    return next(own, None)


def left(last: InvocationState, now: str) -> tuple[str, int, str]:
    """Who goes on after an invocation, with how many calls, and until when: the time at the gate does not count."""
    seconds = (unix_ms_of(last.expires_at) - unix_ms_of(last.since)) // 1000
    return last.agent, max(0, last.calls_budget - last.calls_used), later(now, max(1, seconds))


# -- going back


def _way_back(draft: Draft, step: AgentStep, on: str, output: object) -> GoBack | None:
    """The first way back that applies. Raises ``ExpressionError`` when a ``when`` has no value."""
    for back in step.go_back:
        if back.on != on:
            continue
        scope = {**draft.state.scope(), "artifacts": output}
        if back.when is None or expressions.condition(back.when, scope):
            return back
    return None


def _go_back(draft: Draft, step: AgentStep, back: GoBack, why: list[str]) -> None:
    template = draft.given.template
    target = steps.step_named(template, back.to)
    visits = status_of(draft.state, back.to).visits
    limit = target.max_visits if isinstance(target, AgentStep) else 1
    if visits >= limit:
        reset(draft, step)
        reason = f"It would go back to {back.to!r}, which the run has come to {visits} times: {'; '.join(why)}"
        steps.give_up(draft, step, "too_many_visits", reason[:1000])
        return
    returned = tuple(f"{step.id}: {text}" for text in why)
    data = PhaseWentBack.model_validate(
        {"from_step": step.id, "to_step": back.to, "on": back.on, "returned": returned, "visit": visits + 1}
    )
    for item in from_here(template, back.to):
        if isinstance(item, AgentStep):
            reset(draft, item)
        if status_of(draft.state, item.id).status != "pending":
            ending.mark(draft, item, "again")
    draft.emit("PHASE_WENT_BACK", data)
    steps.advance(draft)


def from_here(template: Template, step_id: str) -> list[Step]:
    """This step and all that come after it, in the order of the template."""
    after = {step_id}
    while True:
        more = {
            item.id
            for index, item in enumerate(template.steps)
            if item.id not in after and after.intersection(template.needs_of(index))
        }
        if not more:
            return [item for item in template.steps if item.id in after]
        after |= more
