"""Signals that come in for waiting steps."""

from __future__ import annotations

from charter.errors import CharterError
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.signal import Signal
from charter.model.template import WaitStep
from charter.workflows import expressions, steps
from charter.workflows.draft import Draft
from charter.workflows.state import State


def waiting(state: State) -> dict[str, str]:
    """The type of signal that each waiting step is for, and nothing once the run has ended."""
    if not state.live or state.ending is not None:
        return {}
    found = state.steps.items()
    return {key: step.waits_for for key, step in found if step.status == "open" and step.waits_for is not None}


def signal_key(signal: Signal) -> str:
    """What names a signal, in one text: two pairs never give the same."""
    return f"{len(signal.source)}:{signal.source}|{signal.id}"


def tenant_key(workflow_id: str | None, signal: Signal) -> str:
    """What the tenant takes once: a signal sent to all, or to this run alone."""
    return f"{workflow_id or ''}|{signal_key(signal)}"


def run_key(workflow_id: str, signal: Signal, alone: bool) -> str:
    """What one run takes once. Who may send to a run alone must not use up the names of what is sent to all."""
    return f"{'alone' if alone else 'all'}|{workflow_id}|{signal_key(signal)}"


def deliver(draft: Draft, command: cmd.DeliverSignal) -> None:
    """Wake the steps that wait for it; each run takes a signal once."""
    signal = command.signal
    woken = [key for key, wanted in waiting(draft.state).items() if wanted == signal.type and not _late(draft, key)]
    for step_id in woken:
        step = steps.step_named(draft.given.template, step_id)
        if not draft.state.live or not isinstance(step, WaitStep) or not _matches(draft, step, signal):
            continue
        sent_by = draft.given.principal.id
        delivered = ev.SignalDelivered(step_id=step_id, signal=signal, sent_by=sent_by, alone=command.alone)
        draft.emit("SIGNAL_DELIVERED", delivered)
        steps.complete_step(draft, step, {"signal": signal.shown()})
    if draft.events:
        draft.claims.append(("signal_run", run_key(command.workflow_id, signal, command.alone), draft.given.now))


def _late(draft: Draft, step_id: str) -> bool:
    """Its time is over, and only a pause keeps it from being given up."""
    timeout_at = draft.state.steps[step_id].timeout_at
    return timeout_at is not None and draft.given.now >= timeout_at


def _matches(draft: Draft, step: WaitStep, signal: Signal) -> bool:
    """A signal is a stranger's: one that the ``where`` cannot be asked of does not match, and that goes on record."""
    where = step.signal.where if step.signal is not None else None
    if where is None:
        return True
    try:
        return expressions.condition(where, {**draft.state.scope(), "signal": signal.shown()})
    except CharterError as error:
        draft.emit(
            "COMMAND_REFUSED",
            ev.CommandRefused(
                command="deliver_signal",
                code=error.error_code,
                message=f"Step {step.id!r} cannot tell whether it waits for {signal.id!r}: {error.message}",
                next_step="Send the signal with the fields that the template's `where` reads, under a new id.",
            ),
        )
        return False
