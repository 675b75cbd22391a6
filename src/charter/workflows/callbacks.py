"""Callbacks: the other side of an ``external`` step says later how it went.

A callback may overtake the answer to the request that asked for it; it is kept then, and used when the answer is there. One
that comes although the answer was lost shows that the request was carried out.
"""

from __future__ import annotations

from charter.errors import CharterError, Refused
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.base import JsonObject
from charter.model.template import ExternalStep, Step
from charter.model.times import later
from charter.workflows import expressions, failing, steps
from charter.workflows.draft import Draft
from charter.workflows.state import EffectState, StepState

CAME_ALL_THE_SAME = "The answer was lost, and the callback shows that the request was carried out."
_TAKES = frozenset({"open", "retrying", "awaiting"})


def claim_key(command: cmd.DeliverCallback) -> str:
    """What a step takes once."""
    return f"{command.workflow_id}|{command.step_id}|{command.message_id}"


def deliver(draft: Draft, command: cmd.DeliverCallback) -> None:
    """Put a callback on record and go on with it; one that nothing waits for is refused."""
    step = _asked(draft, command.step_id)
    found = draft.state.steps.get(command.step_id, StepState())
    if step is None or not draft.state.live or found.status not in _TAKES or found.callback is not None:
        draft.refuse("deliver_callback", not_awaited(command.step_id))
        return
    data = ev.CallbackReceived(step_id=step.id, message_id=command.message_id, body=command.body)
    draft.emit("CALLBACK_RECEIVED", data)
    draft.claims.append(("callback", claim_key(command), draft.given.now))
    doubted = _in_doubt(draft, step.id)
    if doubted is not None:
        resolved = ev.EffectResolved(
            effect_id=doubted.invoke.effect_id,
            resolution="ran",
            resolved_by=draft.given.principal.id,
            comment=CAME_ALL_THE_SAME,
        )
        draft.emit("EFFECT_RESOLVED", resolved)
    if found.status == "awaiting" or doubted is not None:
        _finish(draft, step, found.output)


def not_awaited(step_id: str) -> Refused:
    """Nothing waits for it: it came before, the step is over, or there is none that asks for one."""
    return Refused(
        f"Step {step_id!r} does not wait for this callback: it came already, or the step is over.",
        code="callback_not_awaited",
        next_step="Do not send it again; a callback is taken once, while its step is open.",
    )


def _asked(draft: Draft, step_id: str) -> ExternalStep | None:
    for step in draft.given.template.steps:
        if step.id == step_id and isinstance(step, ExternalStep) and step.callback is not None:
            return step
    return None


def _in_doubt(draft: Draft, step_id: str) -> EffectState | None:
    own = (item for item in draft.state.effects.values() if item.invoke.step_id == step_id)
    return next((item for item in own if item.status == "in_doubt"), None)


def came(draft: Draft, step: Step) -> bool:
    """Whether the step was called back already."""
    found = draft.state.steps.get(step.id)
    return found is not None and found.callback is not None


def answered(draft: Draft, step: Step, output: object) -> None:
    """The step's call has its answer: it is done, unless it has yet to be called back."""
    if not isinstance(step, ExternalStep) or step.callback is None:
        steps.complete_step(draft, step, output)
    elif draft.state.dry_run:  # nobody was asked to call back
        first = output if isinstance(output, dict) else {}
        steps.complete_step(draft, step, {**first, **dict.fromkeys(step.callback.extract)} or output)
    elif came(draft, step):
        _finish(draft, step, output)
    else:
        steps.await_callback(draft, step, output, later(draft.given.now, step.callback.timeout_seconds))


def _finish(draft: Draft, step: ExternalStep, output: object) -> None:
    wanted, callback = step.callback, draft.state.steps[step.id].callback
    assert wanted is not None
    scope: JsonObject = {**draft.state.scope(), "callback": callback}
    try:
        if wanted.success_condition is not None and not expressions.condition(wanted.success_condition, scope):
            reason = f"The callback's success condition {wanted.success_condition!r} is false."
            failing.fail_step(draft, step, "success_condition", reason)
            return
        found = {name: expressions.evaluate(source, scope) for name, source in wanted.extract.items()}
    except CharterError as error:
        failing.fail_step(draft, step, error.error_code, error.message)
        return
    first = output if isinstance(output, dict) and step.extract else {}
    steps.complete_step(draft, step, {**first, **(found or callback or {})})
