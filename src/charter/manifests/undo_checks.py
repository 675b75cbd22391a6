"""What is wrong with steps that undo others, before a template runs."""

from __future__ import annotations

from collections.abc import Iterator

from charter.manifests.finding import Finding
from charter.model.template import (
    UNDOERS,
    ActionStep,
    AgentStep,
    ChildStep,
    ExternalStep,
    Step,
    Template,
    branches_of,
    compensation,
)


def findings(template: Template) -> Iterator[Finding]:
    """A step names one that can undo it; that one does nothing else, and nothing waits for it."""
    undoers = template.undoers
    for index, step in enumerate(template.steps):
        where = f"/steps/{index}"
        yield from _named(template, step, where)
        if step.id in undoers:
            yield from _undoer(step, where)
        for name in (*(step.needs or ()), *(each for branch in branches_of(step) for each in branch)):
            if name in undoers and step.id not in undoers:
                text = f"step {name!r} only undoes another one, and is no part of the run's way"
                yield Finding("error", where, text, "Name another step, or call the tool in a step of its own.")


def _named(template: Template, step: Step, where: str) -> Iterator[Finding]:
    how = compensation(step)
    if how is None or how.step is None:
        return
    place = f"{where}/compensate/step"
    named = next((item for item in template.steps if item.id == how.step), None)
    if named is None:
        listed = ", ".join(item.id for item in template.steps)
        yield Finding("error", place, f"there is no step {how.step!r}", f"Steps here are: {listed}.")
    elif not isinstance(named, UNDOERS):
        mend = "Name an action, external, notification, workflow or agent step."
        yield Finding("error", place, f"a step of type {named.type} undoes nothing", mend)


def _undoer(step: Step, where: str) -> Iterator[Finding]:
    asked = {
        "needs": step.needs is not None,
        "if": step.condition is not None,
        "compensate": compensation(step) is not None,
        "callback": isinstance(step, ExternalStep) and step.callback is not None,
        "timeout_seconds": isinstance(step, ActionStep | ChildStep) and step.timeout_seconds is not None,
        "gate": isinstance(step, AgentStep) and step.gate is not None,
        "go_back": isinstance(step, AgentStep) and bool(step.go_back),
    }
    for name, there in asked.items():
        if there:
            text = f"the step undoes another one, so it has no `{name}`"
            mend = (
                "Take it out: the step runs when what it undoes is to be undone, and waits for a person when it fails."
                if name not in ("gate", "go_back")
                else "Take it out: the run's end is decided by then, and leads nowhere else; let `output_schema` say "
                "what is handed in."
            )
            yield Finding("error", f"{where}/{name}", text, mend)
