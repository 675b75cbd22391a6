"""A template drawn: as Mermaid for documents, as text for terminals. What differs between two versions, step by step."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from charter.model.base import JsonObject
from charter.model.plain_text import one_line
from charter.model.template import ConditionStep, Step, Template

_SHAPES: Final[Mapping[str, tuple[str, str]]] = {
    "agent": ("([", "])"),
    "action": ("[", "]"),
    "approval": ("{{", "}}"),
    "condition": ("{", "}"),
    "wait": ("(", ")"),
}
"""Mermaid's brackets for a step's type; those not named are plain boxes."""
_LABEL = 60


@dataclass(frozen=True, slots=True)
class Edge:
    """``target`` waits for ``source``; ``label`` says in which case it is not skipped then, empty for always."""

    source: str
    target: str
    label: str = ""


def edges(template: Template) -> tuple[Edge, ...]:
    """What follows what, in the order of the steps: needs, and the branches of conditions among them."""
    branches = {
        (step.id, target): label
        for step in template.steps
        if isinstance(step, ConditionStep)
        for label, targets in (("true", step.if_true), ("false", step.if_false))
        for target in targets
    }
    found = [
        Edge(need, step.id, branches.pop((need, step.id), "to be undone" if step.id in template.undoers else ""))
        for index, step in enumerate(template.steps)
        for need in template.needs_of(index)
    ]
    return (*found, *(Edge(source, target, label) for (source, target), label in branches.items()))


def mermaid(template: Template) -> str:
    """A Mermaid flowchart; every text of the template's is quoted, so none can draw on its own."""
    names = {step.id: f"s{index}" for index, step in enumerate(template.steps)}
    lines = ["flowchart TD"]
    for step in template.steps:
        left, right = _SHAPES.get(step.type, ("[", "]"))
        lines.append(f"  {names[step.id]}{left}{_quoted(_title(step))}{right}")
    for edge in edges(template):
        arrow = f"-->|{_quoted(edge.label)}|" if edge.label else "-->"
        lines.append(f"  {names[edge.source]} {arrow} {names[edge.target]}")
    return "\n".join(lines) + "\n"


def text(template: Template) -> str:
    """One line a step, in an order in which they may run, each with what it waits for."""
    into: dict[str, list[str]] = {step.id: [] for step in template.steps}
    for edge in edges(template):
        into[edge.target].append(f"{edge.source} is {edge.label}" if edge.label else edge.source)
    width = max(len(step.id) for step in template.steps)
    lines = []
    for step in _in_order(template):
        after = f"  after {', '.join(into[step.id])}" if into[step.id] else ""
        when = f"  if {one_line(step.condition)[:_LABEL]}" if step.condition else ""
        lines.append(f"{step.id.ljust(width)}  {step.type}{after}{when}")
    return "\n".join(lines) + "\n"


def _in_order(template: Template) -> Iterator[Step]:
    """Each step after all that it waits for; those in a circle last, as they stand."""
    left = {step.id: step for step in template.steps}
    waits: dict[str, set[str]] = {step_id: set() for step_id in left}
    for edge in edges(template):
        waits[edge.target].add(edge.source)
    while left:
        ready = [step for step in left.values() if not waits[step.id] & left.keys()] or list(left.values())
        for step in ready:
            del left[step.id]
            yield step


def _title(step: Step) -> str:
    return (
        f"{step.id} ({step.type})"
        if step.title is None
        else f"{step.id} ({step.type}): {one_line(step.title)[:_LABEL]}"
    )


def _quoted(label: str) -> str:
    # Mermaid reads entities with # inside quotes; nothing else has a meaning there.
    return '"' + "".join(f"#{ord(char)};" if char in '"#<>&`\\' else char for char in label) + '"'


@dataclass(frozen=True, slots=True)
class Change:
    """``where`` names a step and the path in it (``steps.pay.arguments.amount``) or a member of the template.

    ``before`` and ``after`` are JSON values, None where there is nothing.
    """

    kind: Literal["added", "removed", "changed", "moved"]
    where: str
    before: Any = None
    after: Any = None


def changes(before: Template, after: Template) -> tuple[Change, ...]:
    """What a run of ``after`` does otherwise than one of ``before``: defaults that are spelled out are no change."""
    old, new = _document(before), _document(after)
    old_steps, new_steps = old.pop("steps"), new.pop("steps")
    found = list(_compare(old, new, ""))
    for step_id, step in old_steps.items():
        if step_id not in new_steps:
            found.append(Change("removed", f"steps.{step_id}", before=step))
    kept = [step_id for step_id in new_steps if step_id in old_steps]
    if kept != [step_id for step_id in old_steps if step_id in new_steps]:
        found.append(Change("moved", "steps", list(old_steps), list(new_steps)))
    for step_id, step in new_steps.items():
        if step_id not in old_steps:
            found.append(Change("added", f"steps.{step_id}", after=step))
        else:
            found += _compare(old_steps[step_id], step, f"steps.{step_id}")
    return tuple(found)


def _document(template: Template) -> JsonObject:
    dumped: JsonObject = template.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"steps"})
    dumped["steps"] = {
        step.id: {"type": step.type, "needs": list(template.needs_of(index))}
        | step.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"id", "needs"})
        for index, step in enumerate(template.steps)
    }
    return dumped


def _compare(before: Any, after: Any, where: str) -> Iterator[Change]:
    if json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True):  # == takes True for 1
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys((*before, *after)):
            inner = f"{where}.{key}" if where else key
            if key not in after:
                yield Change("removed", inner, before=before[key])
            elif key not in before:
                yield Change("added", inner, after=after[key])
            else:
                yield from _compare(before[key], after[key], inner)
        return
    yield Change("changed", where, before, after)
