"""What people and agents see of a run: where it is, what they may do, and who or what it waits for."""

from __future__ import annotations

from collections.abc import Iterator

from charter.errors import CharterError
from charter.model.phase import Check
from charter.model.principal import Principal
from charter.model.reply import Blocker, OpenInvocation, WorkflowContext
from charter.model.template import UNDO, AgentStep, Template
from charter.workflows import expressions
from charter.workflows.facts import invocation_live
from charter.workflows.quorum import standing, whom
from charter.workflows.state import State, StepState
from charter.workflows.steps import step_named


def context(state: State, template: Template, principal: Principal, now: str) -> WorkflowContext:
    """The whole view for one caller."""
    blockers = blocked_by(state)
    invocations = open_invocations(state, template, principal, now)
    current = next((key for key, step in reversed(state.steps.items()) if step.status == "open"), None)
    return WorkflowContext.model_validate(
        {
            "workflow_id": state.workflow_id,
            "tenant_id": state.tenant,
            "actor": principal.actor(),
            "template": state.template,
            "status": _status(state, blockers),
            "purpose": state.purpose,
            "case_id": state.case_id,
            "dry_run": state.dry_run,
            "current_step": current,
            "allowed_tools": tuple(dict.fromkeys(tool for item in invocations for tool in item.allowed_tools)),
            "approval_required": any(item.what == "approval" for item in blockers),
            "invocations": invocations,
            "blocked_by": blockers,
            "steps": {
                **{key: state.steps.get(key, StepState()).status for key in _way(template)},
                **{key: step.status for key, step in state.steps.items() if key.startswith(UNDO)},
            },
            "output": state.output,
            "reason": state.reason,
            "parent_workflow_id": state.parent_workflow_id,
            "children": {key: step.child_workflow_id for key, step in state.steps.items() if step.child_workflow_id},
            "next_step": _next_step(state, invocations, blockers),
        }
    )


def _way(template: Template) -> list[str]:
    undoers = template.undoers
    return [step.id for step in template.steps if step.id not in undoers]


def open_invocations(state: State, template: Template, principal: Principal, now: str) -> tuple[OpenInvocation, ...]:
    """The invocations that this caller may use now."""
    out = []
    for item in state.invocations.values():
        if not invocation_live(state, item.agent_invocation_id, principal, now):
            continue
        step = step_named(template, item.step_id)
        if not isinstance(step, AgentStep):
            continue
        out.append(
            OpenInvocation(
                agent_invocation_id=item.agent_invocation_id,
                step_id=item.step_id,
                title=step.title,
                instructions=_instructions(step, state),
                allowed_tools=item.allowed_tools,
                calls_left=max(0, item.calls_budget - item.calls_used),
                expires_at=item.expires_at,
                output_schema=step.handed_over,
                forbidden_tools=item.forbidden_tools,
                argument_rules=item.argument_rules,
                checks=tuple(_check(check) for check in step.gate.checks) if step.gate is not None else (),
                returned=state.gates[step.id].returned if step.id in state.gates else (),
            )
        )
    return tuple(out)


def _check(check: Check) -> str:
    """A check as the agent that must pass it reads it."""
    said = check.message or check.question or check.expression or "a JSON Schema"
    return f"{check.id}: {said}" + ("" if check.severity == "blocking" else " (a warning)")


def _instructions(step: AgentStep, state: State) -> str:
    try:
        return expressions.as_text(expressions.render(step.instructions, state.scope()))
    except CharterError:  # it had a value when the step opened; another branch has changed what it reads
        return step.instructions


_WAITS = frozenset({"approval", "review", "effect_in_doubt", "signal", "callback", "timer"})


def status_of(state: State) -> str:
    """The run's status, the same for all who look and in lists.

    ``waiting``: it cannot go on until a person answers, a signal comes or a time is there. While an agent holds an open step, a
    tool call runs or Charter itself has the next step, it is ``running``.
    """
    return _status(state, None)


def _status(state: State, blockers: tuple[Blocker, ...] | None) -> str:
    if not state.moving or any(item.status == "open" for item in state.invocations.values()):
        return state.status
    blockers = blocked_by(state) if blockers is None else blockers
    return "waiting" if all(item.what in _WAITS for item in blockers) else state.status


def blocked_by(state: State) -> tuple[Blocker, ...]:
    """Who or what the run waits for, people first."""
    if not state.live:
        return ()
    held = "Paused: an operator resumes it (charter workflows resume)."
    out = [] if state.driven else [Blocker(what="operator", who="an operator", since=state.updated_at, detail=held)]
    out += [*_people(state), *_steps(state), *_calls(state)]
    for invocation in state.invocations.values():
        if invocation.status == "open":
            detail = f"Agent {invocation.agent} works on step {invocation.step_id!r}."
            out.append(Blocker(what="agent", who=invocation.agent, since=invocation.since, detail=detail))
    if not out:
        out.append(
            Blocker(what="engine", who="charter", since=state.updated_at, detail="The engine runs the next step.")
        )
    return tuple(out)


def _people(state: State) -> Iterator[Blocker]:
    for approval in state.approvals.values():
        if approval.status != "pending":
            continue
        request = approval.request
        missing = whom(standing(approval))
        asked = approval.decisions[-1] if approval.decisions else None
        more = (
            f" Asked by {asked.decided_by}: {asked.comment}" if asked and asked.decision == "request_more_info" else ""
        )
        yield Blocker(
            what="approval",
            who=missing,
            since=request.requested_at,
            detail=f"Approval of {request.tool or 'step ' + request.step_id} by {missing}.{more}",
            approval_id=request.approval_id,
        )


def _steps(state: State) -> Iterator[Blocker]:
    for step_id, step in state.driven_steps() if state.ending is not None else state.steps.items():
        if step.status == "review":
            detail = (
                f"Step {step_id!r} failed, and a person says how it goes on (charter workflows review): {step.reason}"
            )
            yield Blocker(what="review", who="an operator", since=step.since, detail=detail, step_id=step_id)
        elif step.status == "retrying":
            detail = f"Step {step_id!r} is tried again at {step.until}; attempt {step.attempt} failed: {step.reason}"
            yield Blocker(what="timer", who="charter", since=step.since, detail=detail, step_id=step_id)
        elif step.status == "awaiting":
            detail = f"Step {step_id!r} waits until it is called back, at most until {step.timeout_at}."
            yield Blocker(what="callback", who="another system", since=step.since, detail=detail, step_id=step_id)
        elif step.status == "polling":
            detail = f"Step {step_id!r} asks {step.polls} again at {step.until}; answer {step.attempt}: {step.reason}"
            yield Blocker(what="timer", who="charter", since=step.since, detail=detail, step_id=step_id)
        elif step.status == "open" and step.child_workflow_id in state.children:
            child_id = step.child_workflow_id or ""
            begun = state.children[child_id].status == "running"
            detail = (
                f"Step {step_id!r} waits for workflow {child_id}." if begun else f"Step {step_id!r} starts {child_id}."
            )
            whom, what = (child_id, "workflow") if begun else ("charter", "engine")
            yield Blocker.model_validate(
                {"what": what, "who": whom, "since": step.since, "detail": detail, "step_id": step_id}
            )
        elif step.status == "open" and step.waits_for is not None:
            until = f", until {step.timeout_at}" if step.timeout_at else ""
            detail = f"Step {step_id!r} waits for a signal of type {step.waits_for!r}{until}."
            yield Blocker(what="signal", who=step.waits_for, since=step.since, detail=detail, step_id=step_id)
        elif step.status == "open" and step.until is not None:
            detail = f"Step {step_id!r} waits until {step.until}."
            yield Blocker(what="timer", who="charter", since=step.since, detail=detail, step_id=step_id)


def _calls(state: State) -> Iterator[Blocker]:
    for effect in state.effects.values():
        if effect.status == "dead_lettered":
            continue
        name = effect.invoke.tool
        if effect.status == "in_doubt":
            detail = f"Nobody knows whether {name} ran: {effect.reason}"
            what, whom = "effect_in_doubt", "an operator"
        else:
            detail, what, whom = f"{name} is running.", "effect", name
        yield Blocker.model_validate(
            {"what": what, "who": whom, "since": effect.since, "detail": detail, "effect_id": effect.invoke.effect_id}
        )


def listed_as(state: State) -> tuple[str, str | None]:
    """What lists show: the status, and the first blocker in one line."""
    blockers = blocked_by(state)
    return _status(state, blockers), f"{blockers[0].what}:{blockers[0].who}" if blockers else None


def _next_step(state: State, invocations: tuple[OpenInvocation, ...], blockers: tuple[Blocker, ...]) -> str:
    if not state.live:
        return f"The workflow is {state.status}; start another if there is more to do."
    if invocations:
        held = ", ".join(f"{item.agent_invocation_id} for step {item.step_id!r}" for item in invocations)
        each = " Each has tools of its own: its allowed_tools under invocations." if len(invocations) > 1 else ""
        return (
            f"You hold {held}: call describe_tools, then propose_action or invoke_tool; when the step's work is done call "
            f"complete_step.{each}"
        )
    return f"Wait: {blockers[0].detail} Call get_workflow again later."
