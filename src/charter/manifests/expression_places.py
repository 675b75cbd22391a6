"""Where in a template expressions stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from charter.manifests import phase_checks, signal_checks
from charter.manifests.outbound_checks import outbound_sources
from charter.model.base import Model
from charter.model.placeholders import expressions_in, unclosed
from charter.model.template import ConditionStep, Step, Template, WaitStep, compensation

_TEXTS: Final = {
    "agent": ("instructions",),
    "action": ("arguments",),
    "approval": ("question", "show"),
    "wait": ("until",),
    "workflow": ("input",),
}
"""The fields of each type that may hold ``{{ CEL }}``."""

_PARTS: Final = ("url", "headers", "body", "webhook", "email")
"""Of what goes out; a part may be a model."""

WHERE: Final = "/signal/where"
POLLED: Final = "/poll/until"
UNDONE: Final = "/compensate/arguments"


def sources(template: Template) -> Iterator[tuple[str, str, Step | None]]:
    """Pointer, CEL source, and the step that it belongs to (None for the output)."""
    for index, step in enumerate(template.steps):
        yield from ((f"/steps/{index}{place}", source, step) for place, source in _of_step(step))
    for source in expressions_in(template.output):
        yield "/output", source, None
    for index, said in signal_checks.said(template):
        yield f"/steps/{index}/signal", said, template.steps[index]
    for where, source in signal_checks.sources(template):
        yield where, source, None


def never_filled(template: Template) -> Iterator[str]:
    """Pointers of the fields with a ``{{`` that is not closed, so that nothing is filled in."""
    for index, step in enumerate(template.steps):
        if (undo := compensation(step)) is not None and unclosed(undo.arguments):
            yield f"/steps/{index}{UNDONE}"
        if isinstance(step, WaitStep) and step.poll is not None and unclosed(step.poll.arguments):
            yield f"/steps/{index}/poll/arguments"
        for name in (*_TEXTS.get(step.type, ()), *_PARTS):
            part = getattr(step, name, None)
            if unclosed(part.model_dump() if isinstance(part, Model) else part):
                yield f"/steps/{index}/{name}"
    if unclosed(template.output):
        yield "/output"


def _of_step(step: Step) -> Iterator[tuple[str, str]]:
    if step.condition is not None:
        yield "/if", step.condition
    if isinstance(step, ConditionStep):
        yield "/expression", step.expression
    if isinstance(step, WaitStep):
        yield from _of_wait(step)
    if (undo := compensation(step)) is not None:
        yield from ((UNDONE, source) for source in expressions_in(undo.arguments))
    for name in _TEXTS.get(step.type, ()):
        yield from ((f"/{name}", source) for source in expressions_in(getattr(step, name)))
    yield from outbound_sources(step)
    yield from phase_checks.sources(step, "")


def _of_wait(step: WaitStep) -> Iterator[tuple[str, str]]:
    if step.signal is not None and step.signal.where is not None:
        yield WHERE, step.signal.where
    if step.poll is not None:
        yield POLLED, step.poll.until
        yield from (("/poll/arguments", source) for source in expressions_in(step.poll.arguments))
