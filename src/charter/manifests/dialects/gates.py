"""The gates of a phase contract as one native gate: checks that are bound are judged, all others are questions to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Notes, Unbound, UnreadableError, slug
from charter.model.base import JsonObject

TYPES: Final = ("approval", "validation", "manual", "automated", "automatic")
_PEOPLE: Final = frozenset(("human", "humans", "person", "people", "anyone", "user"))


@dataclass(slots=True)
class GateOf:
    """What the gates of a phase come to, and what they are called."""

    native: JsonObject | None = None
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Reader:
    phase: str
    artifacts: list[str]
    bindings: Bindings
    notes: Notes
    checks: list[JsonObject] = field(default_factory=list)
    requirements: list[JsonObject] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    asks: bool = False

    # -- checks

    def rule(self, node: Node, artifact: str) -> None:
        """A rule of an artifact's validation."""
        name = node.text("rule", "check", "name")
        self._add(node, name, name if not self._taken(slug(name)) else f"{artifact} {name}", "blocking")

    def gate(self, node: Node) -> None:
        """One of the phase's gates."""
        name = node.text("id", "name")
        self.names.append(name)
        kind = node.one_of("type", TYPES, "validation")
        for listed in ("blockers", "checks", "blocking_checks", "warnings", "warning_checks"):
            usual = "warning" if listed.startswith("warning") else "blocking"
            for check in self._listed(node, listed):
                called = check.text("check", "name", "id", "rule")
                self._add(check, called, called, usual)
        if (seconds := node.seconds(timeout_seconds=1, timeout_minutes=60, timeout_hours=3600)) is not None:
            self.seconds.append(seconds)
        asks = kind in ("approval", "manual") or "approvers" in node
        if asks:
            self._approvers(node, name)
        auto = node.flag("auto_advance", not asks)
        if not auto and not asks:
            text = f"gate {name!r} does not advance by itself, and has no approvers: it would never open"
            self.notes.error(node.where, text, "Add `approvers`, or say auto_advance: true.")
        node.ignore("name", "description", "required")
        node.done("id type blockers checks approvers timeout_seconds auto_advance")

    def _listed(self, node: Node, name: str) -> list[Node]:
        value = node.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.notes.error(node.at(name), "a list of checks is needed", "Write - check: NAME.")
            return []
        found = []
        for index, item in enumerate(value):
            where = f"{node.at(name)}/{index}"
            try:
                found.append(Node({"check": item} if isinstance(item, str) else item, where, self.notes, "a check"))
            except UnreadableError:
                continue
        return found

    def _taken(self, check: str) -> bool:
        return any(item["id"] == check for item in self.checks)

    def _add(self, node: Node, name: str, title: str, usual: str) -> None:
        severity = node.one_of("severity", ("blocking", "warning"), usual) or usual
        message = str(node.take("message") or node.take("description") or "")
        params = {key: node.take(key) for key in node.map_names()}
        known = slug(title) or f"check_{len(self.checks)}"
        if self._taken(known):
            same = next((item for item in self.checks if item["id"] == known and item["name"] == name), None)
            if same is not None:  # an artifact's rule and a gate's check are one, and the stricter word counts
                same["severity"] = "blocking" if "blocking" in (severity, same["severity"]) else severity
                return
            known = f"{known}_{len(self.checks)}"
        made: JsonObject = {"id": known, "severity": severity, "name": name}
        if message:
            made["message"] = message
        bound = self.bindings.checks.get(name)
        if bound is not None:
            meaning = bound.model_dump(
                mode="json", by_alias=True, exclude_defaults=True, exclude={"id", "severity", "message"}
            )
            self._satisfiable(node, meaning)
            made |= {**meaning, "params": {**params, **meaning.get("params", {})}}
        else:
            with_params = f" ({', '.join(f'{key}: {value}' for key, value in params.items())})" if params else ""
            made["question"] = f"{name}: {message or 'does it hold?'}{with_params}".replace("{{", "{ {")
            text = f"the check {name!r} is only a name: the gate's approver is asked"
            self.notes.warn(node.where, text, f"Bind it: checks: {{{name}: {{expression: …}}}}, a schema or evidence.")
        self.checks.append(made)

    def _satisfiable(self, node: Node, meaning: JsonObject) -> None:
        artifact = meaning.get("artifact")
        if artifact is not None and slug(artifact) not in map(slug, self.artifacts):
            text = f"the check is bound to an artifact {artifact!r}, which phase {self.phase!r} does not require"
            self.notes.error(node.where, text, f"Bind it to one of: {', '.join(self.artifacts) or 'none'}.")

    # -- people

    def _approvers(self, node: Node, gate: str) -> None:
        names = node.texts("approvers")
        self.asks = True
        if not names:
            text = f"gate {gate!r} needs approval, and names no approvers: it would never open"
            self.notes.error(node.where, text, "Add `approvers`.")
            return
        found: list[JsonObject] = []
        for name, where in names:
            bound = self.bindings.approvers.get(name)
            if bound is not None:
                found.append(bound.model_dump(mode="json", exclude_defaults=True))
            elif name in _PEOPLE:
                found.append({})
            else:
                role = self.bindings.roles.get(name)
                if role is None:
                    mend = f"Bind it: approvers: {{{name}: {{role: …}}}}; until then it is the role {name!r}."
                    self.notes.unbound.append(Unbound(where, f"the approver {name!r} is not bound", mend))
                found.append({"role": role or name})
        # Named side by side any of them is enough; where any person is among them, any person is.
        if {} in found:
            found = [{}]
        elif len(found) > 1:
            text = "several approvers are named, and each of them must agree"
            self.notes.warn(node.at("approvers"), text, "Bind them to one role where any of them is meant.")
        self.requirements += found

    def native(self, on_timeout: str | None, where: str) -> JsonObject | None:
        """The gate; None where there is nothing to check and nobody to ask."""
        if not self.checks and not self.asks:
            return None
        made: JsonObject = {"checks": [{key: item[key] for key in item if key != "name"} for item in self.checks]}
        questions = [item["name"] for item in self.checks if "question" in item]
        if questions and not self.asks:
            self._nobody(questions, where)
        if self.requirements:
            made["approval"] = {"requirements": self.requirements}
        if self.seconds:
            made["timeout_seconds"] = min(self.seconds)
        if on_timeout is not None:
            made["on_timeout"] = on_timeout
        return made

    def _nobody(self, questions: list[str], where: str) -> None:
        given = self.bindings.gate_approvers
        if given is not None:
            self.requirements = [item.model_dump(mode="json", exclude_defaults=True) for item in given]
            return
        text = f"phase {self.phase!r} names nobody who could answer {', '.join(questions)}; any person who may approve is asked"
        self.notes.unbound.append(Unbound(where, text, "Bind the checks, or gate_approvers: [{role: …}]."))
        self.requirements = [{}]


def gate_of(
    node: Node,
    phase: str,
    artifacts: list[str],
    rules: list[tuple[Node, str]],
    bindings: Bindings,
    notes: Notes,
    on_timeout: str | None,
) -> GateOf:
    """All gates of a phase, and the rules of its artifacts, as one."""
    reader = _Reader(phase, artifacts, bindings, notes)
    for rule, artifact in rules:
        reader.rule(rule, artifact)
    for gate in node.nodes("gates", "a gate"):
        reader.gate(gate)
    return GateOf(reader.native(on_timeout, node.where), reader.names)
