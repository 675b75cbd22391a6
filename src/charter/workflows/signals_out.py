"""What a ``signal`` step says."""

from __future__ import annotations

from charter.errors import InvalidInput
from charter.model import signal_events as sev
from charter.model.canonical import canonical
from charter.model.signal import DATA_BYTES, DATA_DEPTH
from charter.model.template import SignalStep
from charter.workflows import expressions


def said(step: SignalStep, scope: dict[str, object]) -> sev.SignalSent:
    """The signal with its values filled in. Raises ``ExpressionError``, ``InvalidInput`` (``signal_too_large``)."""
    subject, data = step.signal.subject, expressions.render(step.signal.data, scope)
    if subject is not None:
        subject = expressions.as_text(expressions.render(subject, scope))[:500]
    if len(canonical(data, max_depth=DATA_DEPTH)) > DATA_BYTES:
        raise InvalidInput(
            f"The data of the signal that step {step.id!r} sends is larger than {DATA_BYTES // 1024} KiB.",
            code="signal_too_large",
            next_step="Send a reference to it.",
        )
    return sev.SignalSent(step_id=step.id, type=step.signal.type, subject=subject, data=data)
