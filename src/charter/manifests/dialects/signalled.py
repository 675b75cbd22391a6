"""The signal form: a workflow that a signal starts, agents by reference, and directives with a payload.

``${signal.x}`` is the data of the signal, which is the run's input here: ``trigger.x``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from charter.manifests.dialects import outside, values
from charter.manifests.dialects.bindings import AgentBinding, Bindings
from charter.manifests.dialects.reading import Node, Notes, Unbound, UnreadableError, slug, step_ids, version_of
from charter.model.base import Json, JsonObject

TYPES: Final = ("agent", "directive")
_ROOTS: Final = {
    "signal": "trigger",
    "trigger": "trigger",
    "input": "trigger",
    "steps": "steps",
    "workflow": "workflow",
}
_OUTPUT: Final = re.compile(r"\$\{\s*steps\.([^.\[\]{}]+)\.output\.([A-Za-z_]\w*)")
_DESCRIBES: Final = ("id", "tags", "metadata", "author", "owner", "created_at", "updated_at")


@dataclass(slots=True)
class Signalled:
    """One document on its way."""

    root: Node
    bindings: Bindings
    notes: Notes
    places: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, list[str]] = field(default_factory=dict)

    def read(self) -> JsonObject:
        """The template, as its native form is written. Raises ``UnreadableError``."""
        self.root.ignore("$schema", *_DESCRIBES)
        body = self.root.node("workflow", "workflow", needed=True)
        self.root.done("workflow")
        title = body.text("name")
        native: JsonObject = {
            "name": self.bindings.name or slug(title, "-") or "workflow",
            "title": title,
            "description": str(body.take("description") or ""),
            "version": self.bindings.version or version_of(body),
        }
        body.ignore(*_DESCRIBES)
        if "trigger" in body:
            native["on_signal"] = [self._trigger(body.node("trigger", "trigger"))]
        steps = list(body.nodes("steps", "a step"))
        body.done("name version description trigger steps")
        native["steps"] = self._steps(steps)
        return native

    def _trigger(self, node: Node) -> JsonObject:
        name = node.text("signal")
        where = values.conditions(node, "signal.data")
        node.done("signal conditions logic")
        self.places["/on_signal/0"] = node.where
        return {"type": self.bindings.signals.get(name, name), **({"where": where} if where else {})}

    def _steps(self, nodes: list[Node]) -> list[JsonObject]:
        names = [node.text("id", "name", default=f"step {number}") for number, node in enumerate(nodes)]
        self.ids = dict(zip(names, step_ids(names), strict=True))
        if len(self.ids) < len(names):
            twin = next(name for name in names if names.count(name) > 1)
            self.notes.error(self.root.where, f"two steps are called {twin!r}", "Give each step its own id.")
            raise UnreadableError
        made = []
        payloads = [(node, node.take("payload", {})) for node in nodes]
        for _, payload in payloads:
            self._note_outputs(payload)
        for number, (node, payload) in enumerate(payloads):
            self.places[f"/steps/{number}"] = node.where
            step: JsonObject = {"id": self.ids[names[number]]}
            if number:
                step["needs"] = [self.ids[names[number - 1]]]
            try:
                made.append(step | self._one(node, payload, names[number]))
            except UnreadableError:
                continue
        return made

    def _note_outputs(self, value: Json) -> None:
        """What later steps read of a step's output is what that step must hand over."""

        def look(text: str) -> str:
            for name, part in _OUTPUT.findall(text):
                asked = self.wanted.setdefault(name.strip(), [])
                asked += [] if part in asked else [part]
            return text

        values.each_text(value, look)

    def _one(self, node: Node, payload: Json, name: str) -> JsonObject:
        kind = node.one_of("type", TYPES)
        title = str(node.take("title") or node.take("description") or name)
        if kind is None:
            if "type" not in node:
                self.notes.error(node.where, "the step has no 'type'", f"Add one of: {', '.join(TYPES)}.")
            raise UnreadableError
        made = {"type": "agent", "title": title, **self._agent(node, name)} if kind == "agent" else None
        if made is None:
            made = {"type": "action", "title": title, **self._directive(node, payload, title)}
        node.done()
        return made

    def _agent(self, node: Node, name: str) -> JsonObject:
        reference = node.node("agent_ref", "agent_ref", needed=True)
        known = reference.text("slug", "id", "name")
        reference.done("slug")
        given = node.node("input", "input")
        from_signal = given.flag("from_signal", False)
        rest = {key: given.take(key) for key in ("data", "prompt", "text", "params") if key in given}
        given.done("from_signal data prompt")
        bound = self.bindings.agents.get(known)
        if bound is None or bound.agent is None:
            mend = f"Bind it: agents: {{{known}: AGENT_ID}}, or role:NAME, or * for any; until then it is {known!r}."
            self.notes.unbound.append(Unbound(reference.where, f"the agent {known!r} is not bound", mend))
        said = node.text("instructions", "prompt", default=f"Do step {name!r}.")
        parts = [self._filled(said, node.where)]
        if from_signal:
            parts.append("The signal's data: {{ trigger }}")
        if rest:
            parts.append(f"Given: {self._filled(values.literal(rest), given.where)}")
        made: JsonObject = {"agent": known, "instructions": "\n\n".join(str(part) for part in parts)}
        if wanted := self.wanted.get(name):
            made["output_schema"] = {"type": "object", "required": wanted}
        return made | outside.on_failure(node) | bound_agent(bound)

    def _directive(self, node: Node, payload: Json, title: str) -> JsonObject:
        name = node.text("directive")
        if not isinstance(payload, dict):
            self.notes.error(node.at("payload"), "the payload is no map", "Write the arguments by their names.")
            raise UnreadableError
        filled = self._filled(payload, node.at("payload"))
        made = outside.call_of(name, filled, node.at("directive"), self.bindings, self.notes)
        return {**made, "reason": title, **outside.on_failure(node)}

    def _filled(self, value: Json, where: str) -> Json:
        def renamed(text: str) -> str:
            return re.sub(
                r"\$\{\s*steps\.([^.\[\]{}]+)", lambda found: "${steps." + self.ids.get(found[1], found[1]), text
            )

        return values.from_dollars(values.each_text(value, renamed), where, self.notes, _ROOTS)


def bound_agent(bound: AgentBinding | None) -> JsonObject:
    """What a binding says of an agent's step."""
    return {} if bound is None else bound.model_dump(mode="json", exclude_none=True)
