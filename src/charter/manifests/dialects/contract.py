"""The phase contract: phases with required artifacts and gates, tools by name, and transitions between them.

A phase is an agent step. What a contract only names (a check, a rule of validation) is bound in configuration, or people answer
it; nothing that it names passes by itself. Sections that tell another system how to work are listed and not carried out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from charter.manifests.dialects import outside
from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.gates import gate_of
from charter.manifests.dialects.reading import Node, Notes, Unbound, UnreadableError, place, slug, step_ids, version_of
from charter.manifests.dialects.signalled import bound_agent
from charter.manifests.dialects.transitions import Transition, linked, transitions_of
from charter.model.base import Json, JsonObject

_SECTIONS: Final = {
    "enforcement": "Charter always enforces; its invocations are what the tokens are, and its ledger the audit log",
    "coordination": "state, events and conflicts are Charter's own",
    "monitoring": "Charter's metrics and alerts are its own (docs/tracing.md)",
    "metadata": "it only describes",
}
_OUTSIDE_SCHEMAS: Final = "nothing outside the contract is read"


@dataclass(slots=True)
class Phase:
    """A phase on its way: its place, id here, artifacts by type, and what its gates need."""

    node: Node
    name: str
    id: str
    step: JsonObject = field(default_factory=dict)
    gates: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Contract:
    """One document on its way."""

    root: Node
    bindings: Bindings
    notes: Notes
    places: dict[str, str] = field(default_factory=dict)

    def read(self) -> JsonObject:
        """The template, as its native form is written. Raises ``UnreadableError``."""
        root = self.root
        title = root.text("name")
        native: JsonObject = {
            "name": self.bindings.name or slug(title, "-") or "contract",
            "title": title,
            "description": str(root.take("description") or ""),
            "version": self.bindings.version or version_of(root),
        }
        schemas = root.map("schemas")
        root.ignore("schemas_dir", "$schema", "id", "author", "owner", "tags")
        on_timeout = self._recovery()
        self._enforcement()
        for name, why in _SECTIONS.items():
            root.unused(name, why)
        phases = self._phases(schemas, on_timeout)
        moves = transitions_of(root, {phase.name: phase for phase in phases}, self.bindings, self.notes)
        root.done("name version description phases transitions schemas recovery enforcement coordination monitoring")
        native["steps"] = self._steps(phases, moves)
        return native

    def _recovery(self) -> str | None:
        node = self.root.node("recovery", "recovery")
        late = node.node("gate_timeout", "gate_timeout")
        known = {
            "escalate_to_human": "human_review",
            "human_review": "human_review",
            "reject": "reject",
            "fail": "fail",
            "return": "return",
            "retry": "return",
        }
        action = late.one_of("action", known)
        late.ignore("preserve_state")
        late.done("action")
        node.unused(
            "agent_crash",
            "Charter sees no agent crash; its invocation expires, and another agent may be granted the step",
        )
        node.unused("orchestrator_crash", "every acknowledged step survives a crash of Charter")
        node.done("gate_timeout agent_crash orchestrator_crash")
        return known[action] if action is not None else None

    def _enforcement(self) -> None:
        value = self.root.take("enforcement")
        mode = value.get("mode") if isinstance(value, dict) else None
        if value is None:
            return
        self.notes.warn(
            self.root.at("enforcement"), f"'enforcement' is not carried out: {_SECTIONS['enforcement']}", "Leave it."
        )
        if mode not in (None, "strict"):
            text = f"the contract says {mode!r}, and Charter enforces it all the same"
            self.notes.warn(
                place(self.root.at("enforcement"), "mode"), text, "Make the checks warnings where that is meant."
            )

    # -- phases

    def _phases(self, schemas: JsonObject, on_timeout: str | None) -> list[Phase]:
        nodes = list(self.root.nodes("phases", "a phase"))
        names = [node.text("id", "name") for node in nodes]
        for number, name in enumerate(names):
            if name in names[:number]:
                self.notes.error(nodes[number].at("id"), f"two phases are called {name!r}", "Give each its own id.")
                raise UnreadableError
        phases = [Phase(node, name, made) for node, name, made in zip(nodes, names, step_ids(names), strict=True)]
        if not phases:
            self.notes.error(self.root.where, "the contract has no phases", "Add `phases`.")
            raise UnreadableError
        for phase in phases:
            try:
                self._phase(phase, schemas, on_timeout)
            except UnreadableError:
                continue
        return phases

    def _phase(self, phase: Phase, schemas: JsonObject, on_timeout: str | None) -> None:
        node = phase.node
        title = str(node.take("name") or phase.name)
        about = str(node.take("description") or title)
        artifacts, rules = self._artifacts(node, phase, schemas)
        given: JsonObject = {"artifacts": artifacts} if artifacts else {}
        gate = gate_of(node, phase.name, phase.artifacts, rules, self.bindings, self.notes, on_timeout)
        phase.gates = gate.names
        if gate.native is not None:
            given["gate"] = gate.native
        if "auto_spawn" in node:
            node.unused("auto_spawn", "Charter starts no agents; it grants the phase to one that comes")
        if (seconds := node.seconds(timeout_seconds=1, timeout_minutes=60, timeout_hours=3600)) is not None:
            given["expires_after_seconds"] = seconds
        if (visits := node.whole("max_visits", least=1)) is not None:
            given["max_visits"] = visits
        given |= self._tools(node)
        said = node.text("instructions", default="\n".join([about, *_asked(artifacts)]))
        node.ignore("order", "metadata")
        node.done("id name description required_artifacts gates allowed_tools forbidden_tools tool_constraints")
        bound = bound_agent(self.bindings.agents.get(phase.name))
        phase.step = {"id": phase.id, "type": "agent", "title": title, "instructions": _literal(said), **given, **bound}

    def _artifacts(
        self, node: Node, phase: Phase, schemas: JsonObject
    ) -> tuple[list[JsonObject], list[tuple[Node, str]]]:
        made, rules = [], []
        for item in node.nodes("required_artifacts", "a required artifact"):
            name = item.text("type", "name", "id")
            known = slug(name)
            artifact: JsonObject = {"name": known}
            if about := item.take("description"):
                artifact["description"] = str(about)
            if "schema" in item:
                artifact["schema"] = self._schema(item, schemas, phase)
            count = item.whole("min_count", item.whole("count", least=1), least=1)
            if count is not None and count > 1:
                artifact["min_count"] = count
            rules += [(rule, name) for rule in item.nodes("validation", "a rule of validation")]
            item.ignore("format", "required")
            item.done("type schema description validation min_count")
            phase.artifacts.append(name)
            made.append(artifact)
        return made, rules

    def _schema(self, item: Node, schemas: JsonObject, phase: Phase) -> Json:
        """A JSON Schema, or the name of one under ``schemas``, with or without a folder before it."""
        value = item.take("schema")
        if isinstance(value, dict):
            return value
        if isinstance(value, str):
            for name in (value, value.rpartition("/")[2]):
                if isinstance(schemas.get(name), dict):
                    return schemas[name]
        listed = ", ".join(schemas) or "none"
        text = f"the schema {str(value)[:80]!r} of phase {phase.name!r} is not under `schemas`, and {_OUTSIDE_SCHEMAS}"
        item.notes.error(item.at("schema"), text, f"There are: {listed}. Without it nothing can satisfy the artifact.")
        return {}

    # -- tools

    def _tools(self, node: Node) -> JsonObject:
        allowed, forbidden = node.texts("allowed_tools"), node.texts("forbidden_tools")
        made: JsonObject = {"allowed_tools": self._governed(allowed, told=True)}
        forbidden_names = {name for name, _ in forbidden}
        both = [where for name, where in allowed if name in forbidden_names]
        for where in both:
            self.notes.warn(where, "the tool is allowed and forbidden; it stays forbidden", "Take one of the two out.")
        if out := self._governed(forbidden, told=False):
            made["forbidden_tools"] = out
        rules: list[JsonObject] = []
        constraints = node.node("tool_constraints", "tool_constraints")
        for name in [*constraints.map_names()]:
            rules += self._rules(name, constraints.node(name, "a constraint"), {tool for tool, _ in allowed})
        if rules:
            made["argument_rules"] = rules
        return made

    def _governed(self, listed: list[tuple[str, str]], *, told: bool) -> list[str]:
        out: list[str] = []
        for name, where in listed:
            bound = self.bindings.tools.get(name)
            if bound is None and "__" not in name and told:
                mend = f"Bind it: tools: {{{name}: [server__tool]}}; until then the phase goes without it."
                self.notes.unbound.append(Unbound(where, f"the tool {name!r} is not bound", mend))
            out += [item for item in (bound.tools if bound is not None else (name,)) if item not in out]
        return out

    def _rules(self, name: str, node: Node, allowed: set[str]) -> list[JsonObject]:
        bound = self.bindings.tools.get(name)
        path, command = (bound.path, bound.command) if bound is not None else ("path", "command")
        if name not in allowed:
            self.notes.warn(node.where, f"the phase does not allow {name!r}", "Allow it, or take the constraint out.")
        made: list[JsonObject] = []
        for kind, argument, may, may_not in (
            ("path", path, "allowed_patterns", "forbidden_patterns"),
            ("path", path, "allowed_paths", "forbidden_paths"),
            ("command", command, "allowed_commands", "forbidden_commands"),
        ):
            rule: JsonObject = {}
            if may in node:
                rule["allowed"] = [text for text, _ in node.texts(may)]
            if may_not in node:
                rule["forbidden"] = [text for text, _ in node.texts(may_not)]
            if rule:
                tools = bound.tools if bound is not None else (name,)
                made += [{"tool": tool, "argument": argument, "kind": kind, **rule} for tool in tools]
        node.ignore("description")
        node.done("allowed_patterns forbidden_patterns allowed_commands forbidden_commands")
        return made

    # -- in order

    def _steps(self, phases: list[Phase], moves: list[Transition]) -> list[JsonObject]:
        links = linked(phases, moves, self.notes)
        steps: list[JsonObject] = []
        for phase in phases:
            link = links[phase.id]
            for number, (action, arguments, where) in enumerate(link.actions):
                given = {key: _filled(item) for key, item in arguments.items()}
                self.places[f"/steps/{len(steps)}"] = where
                step = {
                    "id": f"{phase.id}.before.{number}",
                    "title": f"{action}, before {phase.name}",
                    "type": "action",
                    "needs": link.needs,
                    "reason": f"The contract's {action!r} on the way to phase {phase.name!r}.",
                    **outside.call_of(action, given, where, self.bindings, self.notes),
                }
                steps.append(step | ({"if": link.condition} if link.condition else {}))
            before = [f"{phase.id}.before.{number}" for number in range(len(link.actions))]
            self.places[f"/steps/{len(steps)}"] = phase.node.where
            made = {**phase.step, "needs": [*link.needs, *before]}
            if link.condition:
                made["if"] = link.condition
            if link.go_back:
                made["go_back"] = link.go_back
            steps.append(made)
        return steps


def _asked(artifacts: Iterable[JsonObject]) -> list[str]:
    return [f"Hand over {item['name']}: {item['description']}" for item in artifacts if "description" in item]


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _filled(value: Any) -> Any:
    return _literal(value) if isinstance(value, str) else value
