"""What is wrong with a template before it runs: everything that would fail at run time and can be known now.

CEL is compiled by the function that is handed in, since the rooms of the pure floor do not import each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

from charter.errors import CharterError
from charter.manifests import (
    approver_checks,
    expression_types,
    input_secrets,
    installed_checks,
    phase_checks,
    signal_checks,
    undo_checks,
)
from charter.manifests.arguments import compile_schema
from charter.manifests.expression_places import POLLED, UNDONE, WHERE, never_filled, sources
from charter.manifests.expression_types import CheckTypes
from charter.manifests.finding import TEXT as _TEXT
from charter.manifests.finding import Finding
from charter.manifests.installed_checks import UNKNOWN, Installation
from charter.manifests.outbound_checks import callbacks, misplaced
from charter.model.base import JsonObject
from charter.model.template import (
    AgentStep,
    ApprovalStep,
    CallStep,
    ChildStep,
    ConditionStep,
    Step,
    Template,
    WaitStep,
    branches_of,
)
from charter.model.times import unix_ms_of

MAX_STEPS: Final = 100
_CLOSE: Final = 'Close it with `}}`; where braces are meant, write them as {{ "{{" }}.'
CheckExpression = Callable[[str], str | None]
"""Compiles one CEL source; None, or what is wrong with it. ``workflows.expressions.problem`` is one."""

_STEP_KEY = re.compile(r"""(?<![\w.])steps\[\s*(?:"([^"]*)"|'([^']*)')\s*\]\.?(\w*)\.?(\w*)""")
_STEP_NAME = re.compile(r"(?<![\w.])steps\.([A-Za-z_]\w*)\b(?!\s*\()\.?(\w*)\.?(\w*)")
_SIGNAL = re.compile(r"(?<![\w.])signal\b")
_SCHEDULE = re.compile(r"(?<![\w.])schedule\b")
_RESULT = re.compile(r"(?<![\w.])result\b")
_TRIGGER = re.compile(r"(?<![\w.])trigger\.([A-Za-z_]\w*)\b(?!\s*\()")


def validate(
    template: Template,
    *,
    installation: Installation = UNKNOWN,
    check_expression: CheckExpression | None = None,
    check_types: CheckTypes | None = None,
    strict: bool = False,
) -> list[Finding]:
    """What is wrong, in the order of the steps; empty when nothing is.

    What only an installation can resolve is a warning, and an error when ``strict``. Errors would fail at run time;
    warnings might.
    """
    graph = _Graph(template)
    found = [*_schemas(template), *graph.findings(), *phase_checks.findings(template), *undo_checks.findings(template)]
    found += approver_checks.findings(template)
    found += [Finding("error", *problem) for problem in signal_checks.problems(template)]
    found += installed_checks.findings(template, installation, "error" if strict else "warning")
    found += [
        Finding("warning", where, "a '{{' is not closed, so it stays text", _CLOSE) for where in never_filled(template)
    ]
    if not any(item.level == "error" for item in graph.findings()):
        found += [*_branches(template, graph), *callbacks(template)]
        found += phase_checks.ways_back(template, graph.before)
        for pointer, source, step in sources(template):
            problem = check_expression(source) if check_expression else None
            if problem is not None:
                found.append(
                    Finding("error", pointer, problem, "Correct the expression; it is CEL, see docs/workflows.md.")
                )
            elif pointer.startswith("/on_"):
                found += [Finding("error", *misread) for misread in signal_checks.misread(pointer, source)]
            else:
                found += phase_checks.names(step, pointer, source)
                found += _references(template, graph, pointer, source, step)
    if check_types is not None and not any(item.level == "error" for item in found):
        found += expression_types.findings(template, installation.manifests, check_types)
    return sorted(found, key=lambda item: _position(item.where))


def _position(pointer: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in pointer.split("/")]


# -- the graph of steps


class _Graph:
    """Who waits for whom. ``before[id]`` are all steps that are over when the step opens."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.ids = [step.id for step in template.steps]
        self.needs = {step.id: template.needs_of(index) for index, step in enumerate(template.steps)}
        self.before: dict[str, set[str]] = {}
        waiting = dict(self.needs)
        while ready := [key for key, needs in waiting.items() if all(need in self.before for need in needs)]:
            for key in ready:
                needs = waiting.pop(key)
                self.before[key] = set(needs).union(*(self.before[need] for need in needs))

    def findings(self) -> Iterator[Finding]:
        if len(self.ids) > MAX_STEPS:
            yield Finding("error", "/steps", f"more than {MAX_STEPS} steps", "Split the work over several templates.")
        for index, step in enumerate(self.template.steps):
            where = f"/steps/{index}"
            if step.id in self.ids[:index]:
                yield Finding("error", f"{where}/id", f"two steps are called {step.id!r}", "Give each step its own id.")
            elif unknown := [need for need in self.needs[step.id] if need not in self.ids]:
                mend = f"Name steps of this template: {', '.join(self.ids)}."
                yield Finding("error", f"{where}/needs", f"there is no step {unknown[0]!r}", mend)
            elif step.id not in self.before and len(self.needs) == len(self.ids):
                yield self._never(index, step.id)

    def _never(self, index: int, step_id: str) -> Finding:
        cycle = self._cycle(step_id)
        where = f"/steps/{index}" + ("/needs" if self.template.steps[index].needs is not None else "")
        if step_id in cycle:
            text = f"the step waits for itself: {' -> '.join([*cycle, cycle[0]])}"
        else:
            text = f"the step can never open: it waits for {self.needs[step_id][0]!r}, which never ends"
        return Finding("error", where, text, "Take one of the needs out.")

    def _cycle(self, start: str) -> list[str]:
        path: list[str] = []
        step = start
        while step not in path:
            path.append(step)
            blocked = [need for need in self.needs.get(step, ()) if need not in self.before and need in self.needs]
            if not blocked:
                return []
            step = blocked[0]
        return path[path.index(step) :]


# -- branches


def _branches(template: Template, graph: _Graph) -> Iterator[Finding]:
    """The steps that a condition names must be there, come after it, and be in one of its branches only."""
    for index, step in enumerate(template.steps):
        if isinstance(step, ApprovalStep):
            yield from _distinct(template, step, f"/steps/{index}/distinct_from")
        names = ("if_true", "if_false") if isinstance(step, ConditionStep) else ("if_approved", "if_rejected")
        on_yes, on_no = branches_of(step)
        asked = any(step.id in (other.condition or "") for other in template.steps)
        if isinstance(step, ConditionStep) and not (on_yes or on_no or asked):
            mend = "Name the steps that depend on it in `if_true` or `if_false`."
            yield Finding("warning", f"/steps/{index}", "no step depends on this condition", mend)
        for branch, named in zip(names, (on_yes, on_no), strict=True):
            for number, name in enumerate(named):
                where = f"/steps/{index}/{branch}/{number}"
                if name not in graph.ids:
                    yield Finding("error", where, f"there is no step {name!r}", f"Steps are: {', '.join(graph.ids)}.")
                elif step.id not in graph.before[name]:
                    mend = f"Add {step.id!r} to the needs of step {name!r}, or of a step that it needs."
                    yield Finding("error", where, f"step {name!r} does not come after {step.id!r}", mend)
                elif branch == names[1] and name in on_yes:
                    yield Finding("error", where, f"step {name!r} is in both branches", "Take it out of one of them.")


def _branched(template: Template, step_id: str) -> bool:
    return any(step_id in named for step in template.steps for named in branches_of(step))


def _distinct(template: Template, step: ApprovalStep, where: str) -> Iterator[Finding]:
    asking = [item.id for item in template.steps if isinstance(item, ApprovalStep | CallStep) and item.id != step.id]
    for number, name in enumerate(step.distinct_from or ()):
        if name not in asking:
            text = f"{name!r} is no other step that people approve"
            mend = f"Name approval or action steps: {', '.join(asking) or 'there are none'}."
            yield Finding("error", f"{where}/{number}", text, mend)


# -- schemas


def _schemas(template: Template) -> Iterator[Finding]:
    yield from _schema(template.input_schema, "/input")
    if template.input_schema.get("type", "object") != "object":
        yield Finding("error", "/input/type", "the input is always an object", "Write `type: object`.")
    yield from input_secrets.findings(template.input_schema)
    for index, step in enumerate(template.steps):
        if isinstance(step, AgentStep) and step.output_schema is not None:
            yield from _schema(step.output_schema, f"/steps/{index}/output_schema")
        if isinstance(step, ApprovalStep) and not step.requirements:
            mend = "Leave `requirements` out for one person, or say how many of which role."
            yield Finding("error", f"/steps/{index}/requirements", "nobody is asked", mend)
        if isinstance(step, ChildStep) and step.condition is None and step.template in (template.name, template.ref):
            mend = "Give the step an `if` that is false at last."
            yield Finding("error", f"/steps/{index}/template", "the template starts itself without end", mend)
        if isinstance(step, WaitStep) and step.until is not None and "{{" not in step.until:
            yield from _time(step.until, f"/steps/{index}/until")


def _time(text: str, where: str) -> Iterator[Finding]:
    try:
        unix_ms_of(text)
    except ValueError:
        mend = "Write a time with its offset, such as 2027-01-31T09:00:00Z."
        yield Finding("error", where, f"{text!r} is no RFC 3339 time with an offset", mend)


def _schema(schema: JsonObject, where: str) -> Iterator[Finding]:
    try:
        compile_schema(schema, what="The schema")
    except CharterError as error:
        yield Finding("error", where, error.message, error.next_step)


# -- expressions


def _references(template: Template, graph: _Graph, where: str, source: str, step: Step | None) -> Iterator[Finding]:
    bare = _TEXT.sub('""', source)
    yield from misplaced(where, bare)
    if _SIGNAL.search(bare) and not where.endswith(WHERE):
        mend = "Wait for it, and read steps.ID.output.signal afterwards."
        yield Finding("error", where, "there is no signal here; only the `where` of a wait has one", mend)
    if _SCHEDULE.search(bare):
        mend = "Give it to the run as `input` of the schedule, and read trigger."
        yield Finding("error", where, "there is no schedule here; only the input of a schedule has one", mend)
    asked = f"{source} {step.condition}" if step is not None and step.condition else source
    if _RESULT.search(bare) and not where.endswith(POLLED):
        mend = "Read steps.ID.output.result after the wait."
        yield Finding("error", where, "there is no result here; only the `until` of a poll has one", mend)
    for name in dict.fromkeys(_TRIGGER.findall(bare)):
        yield from _field(template.input_schema, name, f"trigger.{name}", asked, where, "the input")
    keyed = [(double or single, part, name) for double, single, part, name in _STEP_KEY.findall(source)]
    for named in dict.fromkeys([*keyed, *_STEP_NAME.findall(bare)]):
        if f"has(steps.{named[0]})" not in asked:
            yield from _step_reference(template, graph, where, asked, step, named)


def _step_reference(
    template: Template, graph: _Graph, where: str, asked: str, step: Step | None, named: tuple[str, str, str]
) -> Iterator[Finding]:
    ref, part, name = named
    if ref not in graph.ids:
        yield Finding("error", where, f"there is no step {ref!r}", f"Steps here are: {', '.join(graph.ids)}.")
    elif step is not None and ref not in graph.before[step.id] and not (ref == step.id and where.endswith(UNDONE)):
        mend = f"Add {ref!r} to the needs of step {step.id!r}, or of a step that it needs."
        yield Finding("error", where, f"step {ref!r} may not be over when step {step.id!r} reads it", mend)
    elif part == "output" and name and not where.endswith(UNDONE):
        yield from _output_field(template, template.steps[graph.ids.index(ref)], name, where, asked)


def _output_field(template: Template, target: Step, name: str, where: str, asked: str) -> Iterator[Finding]:
    ref = target.id
    skipped = target.condition is not None or _branched(template, ref)
    skipped = skipped or target.on_failure != "fail_workflow"
    if skipped and ".status" not in asked:
        mend = f'Ask first: steps.{ref}.status == "completed" ? … : …'
        yield Finding("warning", where, f"step {ref!r} may be skipped, and its output is null then", mend)
    if isinstance(target, AgentStep) and (schema := target.handed_over) is not None:
        what = f"the output of step {ref!r}"
        yield from _field(schema, name, f"steps.{ref}.output.{name}", asked, where, what)


def _field(schema: JsonObject, name: str, path: str, asked: str, where: str, what: str) -> Iterator[Finding]:
    """A field that the schema does not have, or need not have; ``asked`` is where a ``has(…)`` may stand."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    if name not in properties:
        level: Literal["error", "warning"] = "error" if schema.get("additionalProperties") is False else "warning"
        known = ", ".join(properties) or "none"
        yield Finding(level, where, f"{what} has no field {name!r}", f"Its schema knows: {known}.")
    elif name not in (schema.get("required") or ()) and f"has({path})" not in asked:
        mend = f"Make it required in the schema, or write has({path}) ? … : …"
        yield Finding("warning", where, f"{what} need not have {name!r}", mend)
