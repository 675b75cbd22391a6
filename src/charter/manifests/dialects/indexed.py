"""The index-based form: a list of steps that run one after the other, and conditions that jump forward by number.

``skip_to:N`` counts from 0. A jump over a condition leaves that condition out, and what it would have decided does not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from charter.manifests.dialects import notices, outside, triggers, values
from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Notes, UnreadableError, slug, step_ids, version_of
from charter.model.base import Json, JsonObject

_DESCRIBES: Final = ("$schema", "id", "tags", "metadata", "created_at", "updated_at", "created_by", "author", "owner")
_JUMP: Final = re.compile(r"skip_to\s*:\s*(-?[0-9]+)")
_PATIENCE: Final = {"timeout_hours": 3600, "timeout_minutes": 60, "timeout_seconds": 1, "timeout_days": 86_400}
_REMINDING: Final = {"reminder_hours": 3600, "reminder_minutes": 60, "remind_after_hours": 3600}
_ESCALATING: Final = {"escalate_after_hours": 3600, "escalate_after_minutes": 60, "escalate_after_days": 86_400}
_LATE: Final = {"reject": "reject", "fail": "fail", "fail_workflow": "fail", "escalate": "escalate"}
TYPES: Final = ("condition", "approval", "action", "external", "wait", "notification")


@dataclass(slots=True)
class Indexed:
    """One document on its way. ``skips[c]``: what condition ``c`` jumps over when it is true, and when it is false."""

    root: Node
    bindings: Bindings
    notes: Notes
    ids: list[str] = field(default_factory=list)
    skips: dict[int, tuple[range, range]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def read(self) -> JsonObject:
        """The template, as its native form is written. Raises ``UnreadableError``."""
        root = self.root
        title = root.text("name")
        native: JsonObject = {
            "name": self.bindings.name or slug(title, "-") or "workflow",
            "title": title,
            "description": str(root.take("description") or ""),
        }
        native["version"] = self.bindings.version or version_of(root)
        native |= triggers.trigger(root, self.bindings, self.notes, self.places)
        root.ignore(*_DESCRIBES)
        nodes = list(root.nodes("steps", "a step"))
        root.done("name version description trigger_type trigger_config steps")
        native["steps"] = self._steps(nodes)
        return native

    # -- steps

    def _steps(self, nodes: list[Node]) -> list[JsonObject]:
        titles = [str(node.take("name") or node.take("title") or f"step {number}") for number, node in enumerate(nodes)]
        self.ids = step_ids(titles)
        kinds = [node.one_of("type", TYPES) or "" if "type" in node else "" for node in nodes]
        made: list[JsonObject] = []
        for number, node in enumerate(nodes):
            self.places[f"/steps/{number}"] = node.where
            step: JsonObject = {"id": self.ids[number], "title": titles[number], "type": kinds[number]}
            if number:
                step["needs"] = [self.ids[number - 1]]
            try:
                step |= self._one(kinds[number], node, number, len(nodes), titles[number])
            except UnreadableError:
                continue
            made.append(step)
        if len(made) == len(nodes):
            self._all_reached(nodes)
            for number, step in enumerate(made):
                self._reached(number, step)
        return made

    def _one(self, kind: str, node: Node, number: int, count: int, title: str) -> JsonObject:
        about = str(node.take("description") or "")
        node.ignore("id", "order", "index", "position")
        if not kind:
            if "type" not in node:
                node.notes.error(node.where, "the step has no 'type'", f"Add one of: {', '.join(TYPES)}.")
            raise UnreadableError
        config = node.node("config", "config", needed=True)
        node.done("type name config description")
        made = {
            "condition": lambda: self._condition(config, number, count),
            "approval": lambda: self._approval(config, about or title),
            "action": lambda: self._action(config, about or title),
            "external": lambda: outside.external(config, self._values, about or title),
            "wait": lambda: self._wait(config),
            "notification": lambda: notices.notification(config, self._values, about or title, self.bindings),
        }[kind]()
        if kind in ("condition", "approval", "wait"):
            made |= self._failing(kind, config, made)
        config.done()
        return made

    def _failing(self, kind: str, config: Node, made: JsonObject) -> JsonObject:
        """What follows a failure; where nobody's answer is met by anything but a rejection, it is a failure."""
        more = outside.on_failure(config)
        silent = kind == "approval" and (more.get("on_failure") == "skip" or "retry" in more)
        return more | ({"on_timeout": "fail"} if silent and "on_timeout" not in made else {})

    def _values(self, value: Json) -> Json:
        return values.numbered_values(value, self.ids)

    def _condition(self, config: Node, number: int, count: int) -> JsonObject:
        source = values.numbered(config.text("expression"), self.ids)
        taken = [self._jump(config, name, number, count) for name in ("if_true", "if_false")]
        if None in taken:
            raise UnreadableError
        to_true, to_false = (target if target is not None else number + 1 for target in taken)
        self.skips[number] = (range(number + 1, to_true), range(number + 1, to_false))
        return {"expression": source}

    def _jump(self, config: Node, name: str, number: int, count: int) -> int | None:
        """The step that the branch leads to; None where it leads nowhere, which is told."""
        text = config.text(name, default="continue").strip()
        if text == "continue":
            return number + 1
        found = _JUMP.fullmatch(text)
        if found is None:
            mend = "Write continue, or skip_to:N with the number of a later step, counted from 0."
            self.notes.error(config.at(name), f"{text[:60]!r} is no branch that is known", mend)
            return None
        target = int(found[1])
        if not number < target < count:
            what = "backwards, or to itself" if 0 <= target <= number else "out of range"
            mend = f"There are steps 0 to {count - 1}; name one after {number}."
            self.notes.error(config.at(name), f"the jump to step {target} is {what}", mend)
            return None
        return target

    def _all_reached(self, nodes: list[Node]) -> None:
        """Every step is on some way from the first one."""
        reached = {0}
        for number in range(len(nodes)):
            if number in reached:
                taken = self.skips.get(number, (range(number + 1, number + 1),))
                reached.update(skipped.stop for skipped in taken)
        for number, node in enumerate(nodes):
            if number not in reached:
                text = f"step {number} is jumped over on every way, and can never run"
                self.notes.error(node.where, text, "Let one branch continue to it, or take it out.")

    def _reached(self, number: int, step: JsonObject) -> None:
        """What decides whether a step runs: the branch lists of conditions that always run, else an ``if``."""
        asked = []
        for condition, (when_true, when_false) in self.skips.items():
            if self._always(condition):
                continue
            for skipped, value in ((when_true, ""), (when_false, "!")):
                if number in skipped:
                    name = f"steps.{self.ids[condition]}"
                    asked.append(f'!({name}.status == "completed" && {value}{name}.output.value)')
        if asked:
            step["if"] = " && ".join(asked)
        if number in self.skips and self._always(number):
            when_true, when_false = self.skips[number]
            for name, skipped in (("if_false", when_true), ("if_true", when_false)):
                if skipped:
                    step[name] = [self.ids[item] for item in skipped]

    def _always(self, condition: int) -> bool:
        return not any(condition in skipped for pair in self.skips.values() for skipped in pair)

    def _approval(self, config: Node, about: str) -> JsonObject:
        made: JsonObject = {
            "question": self._values(config.text("message", "question", "description", default=about)),
            "show": {"input": "{{ trigger }}"},
            "requirements": self._approvers(config),
        }
        if (seconds := config.seconds(**_PATIENCE)) is not None:
            made["expires_after_seconds"] = seconds
        if (seconds := config.seconds(**_REMINDING)) is not None:
            made["remind_after_seconds"] = seconds
        return made | self._late(config)

    def _late(self, config: Node) -> JsonObject:
        """What follows when nobody decides in time; ``escalate`` says to whom, by ``escalate_to`` or ``escalation``."""
        said = "on_timeout" in config
        late = config.one_of("on_timeout", _LATE, "reject")
        more = config.node("escalation", "escalation")
        after = config.seconds(**_ESCALATING)
        given = config.take("escalate_to")
        if given is None:
            given = more.take("approvers", more.take("to"))
        after = after or more.seconds(after_hours=3600, after_minutes=60, after_days=86_400)
        lasts = more.seconds(**_PATIENCE)
        more.done("approvers after_hours timeout_hours")
        meant = None if late is None else _LATE[late]
        made: JsonObject = {"on_timeout": meant} if said and meant in ("fail", "reject") else {}
        wanted = meant == "escalate"
        if given is None:
            if wanted or after is not None:
                mend = "Say to whom: escalate_to: {type: role, value: NAME}."
                self.notes.error(config.where, "it is escalated to nobody", mend)
            return made
        asked = self._listed(given, config.at("escalate_to"), 1)
        terms: JsonObject = {} if lasts is None else {"expires_after_seconds": lasts}
        if after is None and not wanted:
            mend = "Write on_timeout: escalate, or escalate_after_hours."
            self.notes.error(config.at("escalate_to"), "it is not said when it is escalated", mend)
        made["escalations"] = [{**item, **terms, **({"after_seconds": after} if after else {})} for item in asked[:1]]
        if len(asked) > 1:
            self.notes.error(
                config.at("escalate_to"), "it is escalated to several at once", "Name one role, or people."
            )
        if wanted and after is None:
            made["on_timeout"] = "escalate"
        return made

    def _approvers(self, config: Node) -> list[JsonObject]:
        value = config.take("approvers")
        many = config.whole("min_approvals", config.whole("required_approvals", 1, least=1), least=1)
        found = self._listed(value, config.at("approvers"), many or 1)
        if value is None or value == []:
            self.notes.error(config.where, "nobody is asked: there are no approvers", "Add approvers: {type, value}.")
        return found

    def _listed(self, value: Json, where: str, many: int) -> list[JsonObject]:
        found: list[JsonObject] = []
        for item in value if isinstance(value, list) else [value] if value is not None else []:
            try:
                found.append(self._approver(Node(item, where, self.notes, "approvers"), many))
            except UnreadableError:
                continue
        return found

    def _approver(self, node: Node, many: int) -> JsonObject:
        kind = node.one_of("type", ("role", "group", "user", "person", "any"))
        if kind is None:
            if "type" not in node:
                self.notes.error(node.where, "the approvers have no 'type'", "Write type: role or type: user.")
            raise UnreadableError
        many = node.whole("count", many, least=1) or many
        if kind == "any":
            node.done("type count")
            return {"approvers": many}
        value = node.take("value")
        node.done("type value count")
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(item, str) and item for item in names):
            self.notes.error(node.at("value"), "the approvers have no name", "Write it as `value`.")
            raise UnreadableError
        if kind in ("user", "person"):
            return {"people": names, "approvers": many}
        if len(names) > 1:
            self.notes.error(node.at("value"), "several roles in one", "Write one entry of approvers for each role.")
            raise UnreadableError
        return {"role": self.bindings.roles.get(names[0], names[0]), "approvers": many}

    def _action(self, config: Node, about: str) -> JsonObject:
        name = config.text("action")
        given = config.map("params")
        made = outside.call_of(name, self._values(given), config.at("action"), self.bindings, self.notes)
        return {**made, "reason": about, **outside.on_failure(config)}

    def _wait(self, config: Node) -> JsonObject:
        seconds = config.seconds(
            duration_hours=3600, duration_minutes=60, duration_seconds=1, duration_days=86_400, seconds=1
        )
        until = config.take("until")
        if (seconds is None) == (until is None):
            self.notes.error(config.where, "a wait has one of a duration and 'until'", "Write duration_hours or until.")
            raise UnreadableError
        return {"seconds": seconds} if until is None else {"until": self._values(str(until))}
