"""Effects after they began: their outcomes, their recovery after a crash, and what people find out about those in doubt."""

from __future__ import annotations

from typing import Any

from charter.errors import NotFound, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.workflows import steps
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
    if outcome.status == "unknown":
        in_doubt(draft, effect, outcome.error_message or "The tool's answer was lost.")
        return
    draft.emit(
        "TOOL_RESULT",
        ev.ToolResult(
            effect_id=command.effect_id,
            attempt=command.attempt,
            status=outcome.status,
            is_error=outcome.is_error,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            duration_us=outcome.duration_us,
            **result,
        ),
    )
    _step_after(draft, effect, command, result.get("output"))


def _step_after(draft: Draft, effect: EffectState, command: cmd.RecordOutcome, output: object) -> None:
    if effect.invoke.agent_invocation_id is not None or not draft.state.live:
        return
    step = steps.step_named(draft.given.template, effect.invoke.step_id)
    if command.outcome.status == "succeeded" and not command.outcome.is_error:
        steps.complete_step(draft, step, output)
        return
    outcome = command.outcome
    reason = outcome.error_message or "The tool answered with an error."
    steps.fail_step(draft, step, outcome.error_code or "tool_error", reason, attempted=True)


def in_doubt(draft: Draft, effect: EffectState, reason: str) -> None:
    """Nobody knows whether it ran."""
    if effect.status == "running":
        invoked = effect.invoke
        doubt = ev.EffectInDoubt(effect_id=invoked.effect_id, attempt=invoked.attempt, reason=reason[:500])
        draft.emit("EFFECT_IN_DOUBT", doubt)


def recover(draft: Draft, command: cmd.RecoverEffect, call: Call | None) -> None:
    """The process that ran the effect is gone: an idempotent tool runs again under the same key, any other is in doubt."""
    effect = draft.state.effects.get(command.effect_id)
    if effect is None or effect.status != "running" or effect.invoke.instance != command.dead_instance:
        return
    if not effect.invoke.idempotent or call is None or not draft.state.live:
        in_doubt(draft, effect, "Charter stopped between the call and its answer, and the tool is not idempotent.")
        return
    again(draft, effect, call)


def again(draft: Draft, effect: EffectState, call: Call) -> None:
    """One attempt more under the same effect and key."""
    changes = {"attempt": effect.invoke.attempt + 1, "instance": draft.given.instance}
    invoked = effect.invoke.model_copy(update=changes)
    draft.emit("TOOL_INVOKE", invoked)
    draft.effect = effect_of(draft, invoked, call)


def resolve(draft: Draft, command: cmd.ResolveEffect, call: Call | None) -> None:
    """A person's finding about an effect in doubt."""
    effect = draft.state.effects.get(command.effect_id)
    if effect is None or effect.status != "in_doubt":
        error = Refused(f"Effect {command.effect_id} is not in doubt.", code="not_in_doubt")
        draft.refuse("resolve_effect", error)
        return
    if command.resolution == "retry" and (call is None or not draft.state.live):
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
    if effect.invoke.agent_invocation_id is not None or not draft.state.live:
        return
    step = steps.step_named(draft.given.template, effect.invoke.step_id)
    if command.resolution == "ran":
        steps.complete_step(draft, step, command.output)
    else:
        steps.fail_step(draft, step, "did_not_run", "A person found that the call did not run.")
