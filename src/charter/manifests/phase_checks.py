"""What is wrong with agent steps as phases before they run: artifacts, gates that could never open, rules, ways back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal

from charter.errors import CharterError
from charter.manifests.arguments import compile_schema
from charter.manifests.finding import TEXT, Finding
from charter.model.phase import ArgumentRule, Check
from charter.model.placeholders import expressions_in
from charter.model.template import AgentStep, Gate, Step, Template

Level = Literal["error", "warning"]
_NOT_FOR_GATES: Final = (
    ("needs", "needs", "Put it on the step."),
    ("condition", "if", "Put it on the step."),
    ("on_failure", "on_failure", "Say `on_timeout` of the gate, and `on_failure` of the step."),
    ("retry", "retry", "Say `attempts` of the gate, or `escalations`."),
    ("on_reject", "on_reject", "Say `on_reject` of the gate, or `go_back` of the step."),
    ("if_approved", "if_approved", "Let the steps need this one."),
    ("if_rejected", "if_rejected", "Say `go_back` of the step."),
    ("edit", "edit", "People say no, and why; the agent hands in anew."),
)
_NAME = r"(?<![\w.]){}\b(?:\.([A-Za-z_]\w*)(?!\s*\()|\[\s*(?:\"([^\"]*)\"|'([^']*)')\s*\])?"
_ARTIFACT: Final = re.compile(_NAME.format("artifacts"))
_PARAM: Final = re.compile(_NAME.format("params"))
_EVIDENCE: Final = re.compile(r"(?<![\w.])evidence\b")
_NEVER: Final = "Then the gate could never open."


def findings(template: Template) -> Iterator[Finding]:
    """What is wrong whatever the installation is."""
    ids = {step.id for step in template.steps}
    for index, step in enumerate(template.steps):
        if isinstance(step, AgentStep):
            where = f"/steps/{index}"
            yield from _artifacts(step, where)
            yield from _tools(step, where)
            if step.gate is not None:
                yield from _gate(step, step.gate, f"{where}/gate", ids)


def _artifacts(step: AgentStep, where: str) -> Iterator[Finding]:
    names = [item.name for item in step.artifacts]
    if step.artifacts and step.output_schema is not None:
        mend = "Leave one out; the output of a step with artifacts is a map of them."
        yield Finding("error", f"{where}/output_schema", "the step has artifacts and an output_schema", mend)
    for number, item in enumerate(step.artifacts):
        if item.name in names[:number]:
            mend = "Give each artifact its own name."
            yield Finding("error", f"{where}/artifacts/{number}/name", f"two artifacts are called {item.name!r}", mend)
        yield from _schema(item.document_schema, f"{where}/artifacts/{number}/schema")


def _schema(schema: object, where: str) -> Iterator[Finding]:
    try:
        compile_schema(schema)
    except CharterError as error:
        yield Finding("error", where, error.message, error.next_step)


def _tools(step: AgentStep, where: str) -> Iterator[Finding]:
    for number, pattern in enumerate(step.forbidden_tools):
        if "*" in pattern[:-1]:
            mend = "Write the whole name, or its beginning and a * at the end."
            yield Finding("error", f"{where}/forbidden_tools/{number}", f"{pattern!r} has a * before its end", mend)
    for number, rule in enumerate(step.argument_rules):
        yield from _rule(step, rule, f"{where}/argument_rules/{number}")


def _rule(step: AgentStep, rule: ArgumentRule, where: str) -> Iterator[Finding]:
    if not any(_overlap(rule.tool, allowed) for allowed in step.allowed_tools):
        mend = "Name a tool of allowed_tools, or take the rule out."
        yield Finding(
            "warning", f"{where}/tool", f"the rule is about {rule.tool!r}, which the step does not allow", mend
        )
    if rule.allowed == ():
        yield Finding("warning", f"{where}/allowed", "nothing is allowed", "Then forbid the tool instead.")
    for name, texts in (("allowed", rule.allowed or ()), ("forbidden", rule.forbidden)):
        for number, text in enumerate(texts):
            problem = _rule_problem(rule, text)
            if problem is not None:
                yield Finding("error", f"{where}/{name}/{number}", *problem)


def _rule_problem(rule: ArgumentRule, text: str) -> tuple[str, str] | None:
    if rule.kind == "path" and (text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/") or not text):
        return f"{text!r} is no pattern of relative paths", "Write it from the tool's folder, with /, without '..'."
    if rule.kind == "command" and not text.split():
        return "an empty command", "Write the words that a command begins with."
    if rule.kind == "pattern":
        try:
            compile_schema({"type": "string", "pattern": text})
        except CharterError as error:
            return error.message, "Use RE2: no look-around and no back-references."
    return None


def _overlap(one: str, other: str) -> bool:
    a, b = one.rstrip("*"), other.rstrip("*")
    if one.endswith("*") and other.endswith("*"):
        return a.startswith(b) or b.startswith(a)
    return other.startswith(a) if one.endswith("*") else one.startswith(b) if other.endswith("*") else one == other


# -- the gate


def _gate(step: AgentStep, gate: Gate, where: str, ids: set[str]) -> Iterator[Finding]:
    hidden = [f"{step.id}.gate", *(f"{step.id}.gate.{check.id}" for check in gate.checks)]
    for name in ids.intersection(hidden):
        yield Finding("error", where, f"step {name!r} has the name of a part of this gate", "Rename that step.")
    if not gate.checks and gate.approval is None:
        mend = "Add `checks` or `approval`, or leave the gate out."
        yield Finding("warning", where, "the gate is always open", mend)
    if gate.approval is not None:
        if not gate.approval.requirements:
            mend = "Leave `requirements` out for one person, or say how many of which role."
            yield Finding("error", f"{where}/approval/requirements", f"nobody is asked. {_NEVER}", mend)
        for name, key, mend in _NOT_FOR_GATES:
            if getattr(gate.approval, name) != type(gate.approval).model_fields[name].default:
                yield Finding("error", f"{where}/approval/{key}", "a gate's approval has none", mend)
    seen: set[str] = set()
    for number, check in enumerate(gate.checks):
        yield from _check(step, gate, check, f"{where}/checks/{number}", seen)


def _check(step: AgentStep, gate: Gate, check: Check, where: str, seen: set[str]) -> Iterator[Finding]:
    if check.id in seen:
        yield Finding("error", f"{where}/id", f"two checks are called {check.id!r}", "Give each check its own id.")
    seen.add(check.id)
    if check.question is not None and gate.approval is None:
        mend = "Add `approval` to the gate, or judge the check by `expression`, `schema` or `evidence`."
        yield Finding("error", f"{where}/question", f"nobody is there to answer it. {_NEVER}", mend)
    if check.document_schema is not None:
        yield from _schema(check.document_schema, f"{where}/schema")
    if check.artifact is not None:
        yield from _known(step, check.artifact, f"{where}/artifact")


def _known(step: AgentStep, name: str, where: str) -> Iterator[Finding]:
    names = [item.name for item in step.artifacts]
    if name not in names:
        listed = f"Artifacts of step {step.id!r} are: {', '.join(names)}." if names else "Name it under `artifacts`."
        text = f"nobody hands over an artifact {name!r}. {_NEVER}"
        yield Finding("error", where, text, listed)


# -- expressions


def sources(step: Step, where: str) -> Iterator[tuple[str, str]]:
    """Pointer and CEL source of everything in an agent step's gate and ways back."""
    if not isinstance(step, AgentStep):
        return
    for number, back in enumerate(step.go_back):
        if back.when is not None:
            yield f"{where}/go_back/{number}/when", back.when
    if step.gate is None:
        return
    for number, check in enumerate(step.gate.checks):
        yield from _check_sources(check, f"{where}/gate/checks/{number}")
    for name in ("question", "show") if step.gate.approval is not None else ():
        for source in expressions_in(getattr(step.gate.approval, name)):
            yield f"{where}/gate/approval/{name}", source


def _check_sources(check: Check, where: str) -> Iterator[tuple[str, str]]:
    if check.expression is not None:
        yield f"{where}/expression", check.expression
    if check.evidence is not None:
        yield from ((f"{where}/evidence/arguments", source) for source in expressions_in(check.evidence.arguments))
    yield from ((f"{where}/question", source) for source in expressions_in(check.question))


def names(step: Step | None, where: str, source: str) -> Iterator[Finding]:
    """Names that only a gate knows, used elsewhere; and artifacts and parameters that are not there."""
    bare = TEXT.sub('""', source)
    check = _check_at(step, where)
    at_gate = isinstance(step, AgentStep) and ("/gate/" in where or "/go_back/" in where)
    if not at_gate and (_ARTIFACT.search(bare) or _PARAM.search(bare)):
        yield Finding("error", where, "only a gate and a way back have artifacts", "Read steps.ID.output.NAME here.")
    elif isinstance(step, AgentStep) and step.artifacts:
        for name in _named(_ARTIFACT, source):
            yield from _known(step, name, where)
    if _EVIDENCE.search(bare) and (check is None or check.evidence is None or not where.endswith("/expression")):
        mend = "Give the check `evidence`, and read it in its `expression`."
        yield Finding("error", where, "there is no evidence here", mend)
    if check is not None:
        for name in _named(_PARAM, source):
            if name not in check.params:
                yield Finding("error", where, f"the check has no parameter {name!r}", "Add it to `params`.")


def _named(pattern: re.Pattern[str], source: str) -> dict[str, None]:
    keyed = (next(filter(None, found), "") for found in pattern.findall(source) if found[1] or found[2])
    plain = (found[0] for found in pattern.findall(TEXT.sub('""', source)))
    return dict.fromkeys(name for name in (*keyed, *plain) if name)


def _check_at(step: Step | None, where: str) -> Check | None:
    found = re.search(r"/gate/checks/(\d+)/", where)
    if found is None or not isinstance(step, AgentStep) or step.gate is None:
        return None
    return step.gate.checks[int(found[1])]


# -- ways back


def ways_back(template: Template, before: Mapping[str, set[str]]) -> Iterator[Finding]:
    """A way back leads to an agent step that this one comes after, and nothing runs beside it meanwhile."""
    steps = {step.id: step for step in template.steps}
    for index, step in enumerate(template.steps):
        if not isinstance(step, AgentStep):
            continue
        for number, back in enumerate(step.go_back):
            where = f"/steps/{index}/go_back/{number}"
            if not isinstance(steps.get(back.to), AgentStep):
                agents = ", ".join(item.id for item in template.steps if isinstance(item, AgentStep))
                yield Finding("error", f"{where}/to", f"there is no agent step {back.to!r}", f"There are: {agents}.")
                continue
            if back.to != step.id and back.to not in before[step.id]:
                mend = "Go back to a step that this one comes after; what comes next follows from `needs`."
                yield Finding("error", f"{where}/to", f"step {back.to!r} does not come before {step.id!r}", mend)
            beside = [
                other
                for other in steps
                if back.to in before[other]
                and other != step.id
                and other not in template.undoers
                and other not in before[step.id]
                and step.id not in before[other]
            ]
            if beside:
                mend = f"Let {beside[0]!r} need {step.id!r}, or be needed by it."
                yield Finding("error", where, f"step {beside[0]!r} may be under way when the run goes back", mend)
            if back.on == "rejected" and (step.gate is None or step.gate.approval is None):
                yield Finding(
                    "error", f"{where}/on", "nobody is asked, so nobody says no", "Give the gate an `approval`."
                )
            if back.on == "blocked" and (step.gate is None or not step.gate.checks):
                yield Finding("error", f"{where}/on", "there is no check that could block", "Give the gate `checks`.")


# -- what only an installation knows


def installed(step: AgentStep, where: str, tools: Collection[str] | None, level: Level) -> Iterator[Finding]:
    """Evidence by tools that are not here."""
    if step.gate is None or tools is None:
        return
    for number, check in enumerate(step.gate.checks):
        if check.evidence is not None and check.evidence.tool not in tools:
            text = f"there is no governed tool {check.evidence.tool!r} here. {_NEVER}"
            mend = "Add its upstream with `charter upstream add`, or correct the name."
            yield Finding(level, f"{where}/gate/checks/{number}/evidence/tool", text, mend)
