"""Effects after they began: their outcomes, their recovery after a crash, and what people find out about those in doubt."""

from __future__ import annotations

from typing import Any

from charter.errors import NotFound, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.effect import EffectOutcome
from charter.model.template import ExternalStep, NotificationStep, Step, WaitStep
from charter.workflows import callbacks, failing, gate_steps, polls, steps
from charter.workflows.calls import effect_of
from charter.workflows.draft import Call, Draft
from charter.workflows.state import EffectState


def record_outcome(draft: Draft, command: cmd.RecordOutcome, result: dict[str, Any]) -> None:
    """Put an outcome on record; ``result`` holds what the gate computed: digest, bytes, ref and output."""
    effect = draft.state.effects.get(command.effect_id)
    if effect is None or effect.invoke.attempt != command.attempt:
        draft.error = NotFound(f"Effect {command.effect_id} (attempt {command.attempt}) is not running.")
        return
    outcome = command.outcome
    become = _become(draft, effect, outcome.status)
    if become == "in_doubt":
        in_doubt(draft, effect, outcome.error_message or "The tool's answer was lost.")
        return
    message = callbacks.CAME_ALL_THE_SAME if become == "called_back" else outcome.error_message
    letter = _dead_letter(draft, effect, outcome)
    if letter is not None:
        draft.emit("EFFECT_DEAD_LETTERED", letter)
    else:
        draft.emit(
            "TOOL_RESULT",
            ev.ToolResult(
                effect_id=command.effect_id,
                attempt=command.attempt,
                status="failed" if become == "failed" else "succeeded",
                is_error=outcome.is_error and become != "called_back",
                error_code=outcome.error_code,
                error_message=message,
                duration_us=outcome.duration_us,
                **result,
            ),
        )
    _step_after(draft, effect, outcome, become, result.get("output"))


def _step_after(draft: Draft, effect: EffectState, outcome: EffectOutcome, become: str, output: object) -> None:
    step = _own_step(draft, effect)
    if step is None or not draft.state.live or not _waits_for(draft, effect):
        return
    if become == "called_back" or (become == "succeeded" and not outcome.is_error):
        _answered(draft, step, output)
        return
    _not_answered(
        draft,
        step,
        outcome.error_code or "tool_error",
        outcome.error_message or "The tool answered with an error.",
        attempted=_retryable(effect, outcome),
        retry_after=outcome.retry_after_seconds,
    )


def _own_step(draft: Draft, effect: EffectState) -> Step | None:
    """The step whose own call it is; None for an agent's call."""
    invoked = effect.invoke
    return steps.step_named(draft.given.template, invoked.step_id) if invoked.agent_invocation_id is None else None


def _waits_for(draft: Draft, effect: EffectState) -> bool:
    """False when the step that began the effect has been opened anew since: its answer came too late."""
    step_id = effect.invoke.step_id
    step = draft.state.steps.get(step_id)
    anew = step is not None and (step.visits > 1 or gate_steps.part(draft.given.template, step_id) is not None)
    return not anew or (step is not None and step.status == "open" and effect.began >= step.opened_at)


def _become(draft: Draft, effect: EffectState, status: str) -> str:
    """What becomes of an effect by how its run ended. A lost answer leaves it ``in_doubt``, but for three cases: the other side
    has called back, which it does only when it was asked; the same request is sent again under the same key, so that nobody
    need find out; or it was a message, which is either sent again or given up.
    """
    step = _own_step(draft, effect) if status == "unknown" else None
    if step is None:
        return "in_doubt" if status == "unknown" else status
    if callbacks.came(draft, step):
        return "called_back"
    if isinstance(step, NotificationStep):
        return "failed"
    repeated = effect.invoke.idempotent and effect.status == "running" and draft.state.moving
    if repeated and isinstance(step, ExternalStep) and failing.another_attempt(draft, step):
        return "failed"
    return "in_doubt"


def _retryable(effect: EffectState, outcome: EffectOutcome) -> bool:
    return outcome.retryable and (outcome.status != "unknown" or effect.invoke.idempotent)


def _dead_letter(draft: Draft, effect: EffectState, outcome: EffectOutcome) -> ev.EffectDeadLettered | None:
    """The record of a message that is given up, where nobody else would hear of it."""
    step = _own_step(draft, effect)
    delivered = outcome.status == "succeeded" and not outcome.is_error
    if not isinstance(step, NotificationStep) or delivered or step.on_failure != "skip":
        return None
    if not effect.resent and (not draft.state.live or _tried_again(draft, step, effect, outcome)):
        return None
    lost = "It may have arrived: " if outcome.status == "unknown" else ""
    return ev.EffectDeadLettered(
        effect_id=effect.invoke.effect_id,
        attempt=effect.invoke.attempt,
        sent=draft.state.steps[step.id].attempt,
        code=outcome.error_code or "tool_error",
        reason=(lost + (outcome.error_message or "It was not taken."))[:500],
    )


def _tried_again(draft: Draft, step: NotificationStep, effect: EffectState, outcome: EffectOutcome) -> bool:
    return _retryable(effect, outcome) and failing.another_attempt(draft, step)


def _answered(draft: Draft, step: Step, output: object) -> None:
    """The step's own call has run. A step that was given up meanwhile is not changed by it."""
    if draft.state.steps[step.id].status != "open":
        steps.advance(draft)  # where the run's end waits for it
    elif isinstance(step, WaitStep) and draft.state.ending is None:
        polls.answered(draft, step, output)
    else:
        callbacks.answered(draft, step, output)


def _not_answered(draft: Draft, step: Step, code: str, reason: str, **more: Any) -> None:
    if draft.state.steps[step.id].status != "open":
        steps.advance(draft)  # where the run's end waits for it
    elif isinstance(step, WaitStep) and draft.state.ending is None:
        polls.go_on(draft, step, reason)
    else:
        failing.fail_step(draft, step, code, reason, **more)


def in_doubt(draft: Draft, effect: EffectState, reason: str) -> None:
    """Nobody knows whether it ran."""
    if effect.status == "running":
        invoked = effect.invoke
        doubt = ev.EffectInDoubt(effect_id=invoked.effect_id, attempt=invoked.attempt, reason=reason[:500])
        draft.emit("EFFECT_IN_DOUBT", doubt)


def recover(draft: Draft, command: cmd.RecoverEffect, call: Call | None) -> None:
    """The process that ran the effect is gone: a tool that is idempotent or has no side effects runs again under the same
    key, any other is in doubt. Both the record of the intent and the manifest of today must say that it may."""
    effect = draft.state.effects.get(command.effect_id)
    if effect is None or effect.status != "running" or effect.invoke.instance != command.dead_instance:
        return
    if not effect.invoke.idempotent:
        _stopped(draft, effect, "Charter stopped between the call and its answer, and the tool is not idempotent.")
        return
    if call is None or not call.manifest.repeatable or not draft.state.live:
        _stopped(draft, effect, "Charter stopped between the call and its answer, and the call can be made no more.")
        return
    again(draft, effect, call)


def _stopped(draft: Draft, effect: EffectState, reason: str) -> None:
    if not isinstance(_own_step(draft, effect), NotificationStep):
        in_doubt(draft, effect, reason)
        return
    invoked = effect.invoke
    lost = EffectOutcome(status="unknown", is_error=True, error_code="interrupted", error_message=reason)
    command = cmd.RecordOutcome(
        workflow_id=draft.state.workflow_id, effect_id=invoked.effect_id, attempt=invoked.attempt, outcome=lost
    )
    record_outcome(draft, command, {})


def again(draft: Draft, effect: EffectState, call: Call) -> None:
    """One attempt more under the same effect and key."""
    changes = {"attempt": effect.invoke.attempt + 1, "instance": draft.given.instance}
    invoked = effect.invoke.model_copy(update=changes)
    draft.emit("TOOL_INVOKE", invoked)
    draft.effect = effect_of(draft, invoked, call)


def resolve(draft: Draft, command: cmd.ResolveEffect, call: Call | None) -> None:
    """A person's finding about an effect in doubt."""
    effect = draft.state.effects.get(command.effect_id)
    if effect is None or effect.status not in ("in_doubt", "dead_lettered"):
        error = Refused(f"Effect {command.effect_id} is not in doubt.", code="not_in_doubt")
        draft.refuse("resolve_effect", error)
        return
    message = (
        effect.status == "dead_lettered"
    )  # it may leave after its run's end: the run had asked for it while it was live
    if command.resolution == "retry" and (call is None or not (draft.state.live or message)):
        error = Refused("It cannot run again: its tool or its workflow is gone.", code="cannot_retry")
        draft.refuse("resolve_effect", error)
        return
    draft.emit(
        "EFFECT_RESOLVED",
        ev.EffectResolved(
            effect_id=command.effect_id,
            resolution=command.resolution,
            resolved_by=draft.given.principal.id,
            comment=command.comment,
            output=command.output,
        ),
    )
    if command.resolution == "retry" and call is not None:
        again(draft, effect, call)
        return
    _after_resolution(draft, effect, command)


def _after_resolution(draft: Draft, effect: EffectState, command: cmd.ResolveEffect) -> None:
    step = _own_step(draft, effect)
    if step is None or not draft.state.live or effect.status == "dead_lettered" or not _waits_for(draft, effect):
        return
    if command.resolution == "ran":
        _answered(draft, step, command.output)
    else:
        reason = "A person found that the call did not run."
        _not_answered(draft, step, "did_not_run", reason, attempted=False)
