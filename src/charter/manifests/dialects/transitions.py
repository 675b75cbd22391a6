"""The transitions of a phase contract: the order of its phases, actions on the way, and ways back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Notes, UnreadableError
from charter.model.base import JsonObject

_ON: Final = {
    **dict.fromkeys(("blocked", "failed", "failure", "gate_blocked", "gate_failed", "fail"), "blocked"),
    **dict.fromkeys(("rejected", "rejection", "reject", "gate_rejected"), "rejected"),
    **dict.fromkeys(("passed", "pass", "success", "gate_passed", "approved"), "passed"),
}
_ARTIFACTS: Final = re.compile(r"(?<![\w.])artifacts\b")


@dataclass(frozen=True, slots=True)
class Transition:
    """One way from a phase to another, by their ids here."""

    source: str
    target: str
    on: str | None
    condition: str | None
    actions: tuple[tuple[str, JsonObject, str], ...]
    where: str


@dataclass(slots=True)
class Link:
    """How a phase hangs together with the others."""

    needs: list[str] = field(default_factory=list)
    condition: str | None = None
    actions: list[tuple[str, JsonObject, str]] = field(default_factory=list)
    go_back: list[JsonObject] = field(default_factory=list)


def transitions_of(root: Node, phases: Mapping[str, Any], bindings: Bindings, notes: Notes) -> list[Transition]:
    """``transitions``, checked: phases and gates that are there, conditions that mean something."""
    out = []
    for node in root.nodes("transitions", "a transition"):
        try:
            out.append(_one(node, phases, bindings, notes))
        except UnreadableError:
            continue
    return out


def _one(node: Node, phases: Mapping[str, Any], bindings: Bindings, notes: Notes) -> Transition:
    ends = []
    for name in ("from", "to"):
        known = node.text(name)
        if known not in phases:
            notes.error(node.at(name), f"there is no phase {known!r}", f"Phases are: {', '.join(phases)}.")
            raise UnreadableError
        ends.append(phases[known])
    gate = node.take("gate")
    if gate is not None and gate not in ends[0].gates:
        listed = ", ".join(ends[0].gates) or "none"
        notes.error(
            node.at("gate"), f"phase {ends[0].name!r} has no gate {str(gate)[:80]!r}", f"Its gates are: {listed}."
        )
    on = node.one_of("on", _ON)
    condition = _condition(node, bindings, notes)
    actions = []
    for trigger in node.nodes("triggers", "a trigger"):
        action, arguments = trigger.text("action"), trigger.map("params")
        trigger.ignore("parallel")
        trigger.done("action params")
        actions.append((action, arguments, trigger.where))
    node.ignore("requires_token", "description", "name", "id")
    node.done("from to gate on condition triggers")
    return Transition(ends[0].id, ends[1].id, _ON[on] if on else None, condition, tuple(actions), node.where)


def _condition(node: Node, bindings: Bindings, notes: Notes) -> str | None:
    """CEL, or the name of a check that is bound to CEL."""
    given = [name for name in ("condition", "when") if name in node]
    if not given:
        return None
    text = node.text(given[0])
    bound = bindings.checks.get(text)
    if bound is not None and bound.expression is not None and bound.evidence is None:
        return bound.expression
    if bound is not None or re.fullmatch(r"[A-Za-z_]\w*", text):
        problem = f"the condition {text!r} is only a name"
        notes.error(node.at(given[0]), problem, f"Bind it to CEL: checks: {{{text}: {{expression: …}}}}.")
        raise UnreadableError
    return text


def linked(phases: list[Any], moves: list[Transition], notes: Notes) -> dict[str, Link]:
    """How the phases hang together; in the order in which they are written where no transitions say otherwise."""
    order = {phase.id: number for number, phase in enumerate(phases)}
    links = {phase.id: Link() for phase in phases}
    forward = [item for item in moves if order[item.target] > order[item.source]]
    for item in moves:
        if order[item.target] <= order[item.source]:
            gate = next(phase.step.get("gate", {}) for phase in phases if phase.id == item.source)
            links[item.source].go_back += _back(item, gate, notes)
    if not forward:
        for before, after in pairwise(phases):
            links[after.id].needs = [before.id]
        return links
    for phase in phases:
        leaving = [item for item in forward if item.source == phase.id]
        if len(leaving) > 1 and any(item.condition is None for item in leaving):
            text = f"several transitions leave phase {phase.name!r}, and not all say when"
            notes.error(leaving[1].where, text, "Give each a `condition`.")
        coming = [item for item in forward if item.target == phase.id]
        if not coming and order[phase.id]:
            text = f"no transition leads to phase {phase.name!r}: it can never begin"
            notes.error(phase.node.where, text, "Add a transition to it, or take the phase out.")
        _arrive(links[phase.id], coming, any(item.condition for item in forward))
    return links


def _arrive(link: Link, coming: list[Transition], conditional: bool) -> None:
    link.needs = list(dict.fromkeys(item.source for item in coming))
    link.actions = [action for item in coming for action in item.actions]
    if not conditional or not coming:
        return
    asked = []
    for item in coming:
        source = f'steps["{item.source}"]'
        over = f'{source}.status == "completed"'
        wanted = _ARTIFACTS.sub(f"{source}.output", item.condition) if item.condition else ""
        asked.append(f"({over} && ({wanted}))" if wanted else f"({over})")
    link.condition = " || ".join(asked)


def _back(item: Transition, gate: JsonObject, notes: Notes) -> list[JsonObject]:
    if item.actions:
        text = "actions on the way back are not carried out"
        notes.error(item.where, text, "Let the phase itself do them.")
    if item.on is None and item.condition is not None:
        return [{"to": item.target, "on": "passed", "when": item.condition}]
    when = {"when": item.condition} if item.condition is not None else {}
    if item.on == "passed" and not when:
        notes.error(
            item.where, "a way back from an open gate needs a condition", "Add `condition`, or say on: blocked."
        )
    possible = {"blocked": bool(gate.get("checks")), "rejected": "approval" in gate}
    ends = [item.on] if item.on else [on for on, may in possible.items() if may]
    if not ends:
        notes.error(
            item.where, "the phase has no gate that could send anything back", "Give it a gate, or a `condition`."
        )
    return [{"to": item.target, "on": on, **when} for on in ends]
