"""Do the types in a template's expressions fit the schemas of what they read?

Each path into a value whose JSON Schema is known is given to CEL's own type checker as a variable of that type; everything
else may be anything. So what is told is wrong for every value that the schema lets in, and much that is wrong is not told.
The checker is handed in, since the rooms of the pure floor do not import each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from charter.manifests.expression_places import POLLED, sources
from charter.manifests.finding import TEXT, Finding
from charter.model.base import JsonObject
from charter.model.misfit import Misfit
from charter.model.template import ActionStep, AgentStep, ConditionStep, Step, Template, WaitStep
from charter.model.tool import ToolManifest

CheckTypes = Callable[[str, Mapping[str, str]], tuple[str, tuple[Misfit, ...]]]
"""Given CEL and the types of some variables: the type of the result, ``""`` for any, and what does not fit.
``workflows.expression_types.check`` is one."""

_PART: Final = r"""(?:\.[A-Za-z_]\w*(?!\w*\s*\()|\[\s*(?:"[^"\\]*"|'[^'\\]*'|\d+)\s*\])"""
_PATH: Final = re.compile(rf"(?<![\w.])(trigger|steps|artifacts|result|evidence)\b((?:{_PART})*)")
_NAME: Final = re.compile(r"""\.([A-Za-z_]\w*)|\[\s*(?:"([^"\\]*)"|'([^'\\]*)'|(\d+))\s*\]""")
_UNCLEAR: Final = re.compile(r"\btype\s*\(|\bdyn\s*\(|\"\"\"|'''|\b[rRbB]{1,2}[\"']|//")
"""Sources that are left alone: they look at types themselves, or hold text that is not found simply."""
_CONDITIONS: Final = re.compile(r"/(if|expression|success_condition|where|when)$|/poll/until$")
_KINDS: Final = {"integer": "int", "number": "number", "string": "string", "boolean": "bool", "object": "map"}
_OF_JSON: Final = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (dict, "object"))
_WORDS: Final = {"int": "a whole number", "double": "a number", "string": "a text", "bool": "true or false"}
_CONDITION_OUTPUT: Final[JsonObject] = {
    "type": "object",
    "properties": {"value": {"type": "boolean"}, "branch": {"type": "string"}},
}


def findings(template: Template, tools: Mapping[str, ToolManifest], check: CheckTypes) -> Iterator[Finding]:
    """What does not fit; of each expression that compiles."""
    roots = _Roots(template, tools)
    for where, source, step in sources(template):
        if not where.startswith("/on_"):
            yield from _of(where, source, roots.at(where, step), check)


# -- schemas


class _Roots:
    """The schemas of what expressions read, as far as they are known."""

    def __init__(self, template: Template, tools: Mapping[str, ToolManifest]) -> None:
        self._tools = tools
        self._common: dict[tuple[str, ...], Any] = {("trigger",): template.input_schema}
        for step in template.steps:
            if (schema := self._output(step)) is not None:
                self._common["steps", step.id, "output"] = schema

    def at(self, where: str, step: Step | None) -> Mapping[tuple[str, ...], Any]:
        found = dict(self._common)
        if isinstance(step, WaitStep) and step.poll is not None and where.endswith(POLLED):
            found["result",] = self._answer(step.poll.tool)
        if isinstance(step, AgentStep) and ("/gate/" in where or "/go_back/" in where):
            found |= {("artifacts", item.name): item.document_schema for item in step.artifacts}
            check = re.search(r"/gate/checks/(\d+)/expression$", where)
            evidence = step.gate.checks[int(check[1])].evidence if check and step.gate else None
            if evidence is not None:
                found["evidence",] = self._answer(evidence.tool)
        return found

    def _output(self, step: Step) -> Any:
        if isinstance(step, AgentStep):
            return step.handed_over
        if isinstance(step, ConditionStep):
            return _CONDITION_OUTPUT
        return self._answer(step.tool) if isinstance(step, ActionStep) else None

    def _answer(self, tool: str) -> Any:
        """What the tool answers with; unknown where the record withholds a part of it."""
        manifest = self._tools.get(tool)
        return None if manifest is None or manifest.sensitive_results else manifest.output_schema


def _kind(schema: Any) -> str:
    """The type of every value that the schema lets in: ``int``, ``number``, ``list(string)``, …; ``""`` for any."""
    named = schema.get("type") if isinstance(schema, dict) else None
    if named is None and isinstance(schema, dict) and ("const" in schema or isinstance(schema.get("enum"), list)):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        named = list(
            dict.fromkeys(next((name for kind, name in _OF_JSON if isinstance(item, kind)), "") for item in values)
        )
    if isinstance(named, list):
        named = "number" if set(named) == {"integer", "number"} else named[0] if len(named) == 1 else None
    if named == "array":
        inner = _kind(schema.get("items")) if "prefixItems" not in schema else ""
        return f"list({inner})" if inner in ("int", "string", "bool") else "list()"
    return _KINDS.get(named, "") if isinstance(named, str) else ""


def _below(schema: Any, part: str | int) -> tuple[Any, str | None]:
    """The schema of a part, None where it is not known, and why there can be no such part."""
    kind = _kind(schema)
    if isinstance(schema, dict) and kind in ("map", "") and isinstance(part, str):
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        if part in known:
            return known[part], None
        more = schema.get("additionalProperties")
        if "patternProperties" in schema or more is not False or not known:
            return (
                more if "patternProperties" not in schema and isinstance(more, dict) and kind == "map" else None
            ), None
        return None, f"has no field {part!r}; its schema knows: {', '.join(known)}"
    if kind.startswith("list("):
        if isinstance(part, int):
            return (None if "prefixItems" in schema else schema.get("items")), None
        return None, f"is a list and has no field {part!r}"
    if kind in ("int", "number", "string", "bool"):
        return None, f"is {_WORDS.get(kind, 'a number')} and has no field {part!r}"
    return None, None


# -- one expression


@dataclass(slots=True)
class _Typed:
    """A source in which paths of known types are variables."""

    source: str
    kinds: dict[str, str]
    impossible: list[str]


def _typed(source: str, roots: Mapping[tuple[str, ...], Any]) -> _Typed:
    texts = [found.span() for found in TEXT.finditer(source)]
    made = _Typed("", {}, [])
    asked = re.sub(r"\s", "", source)
    at = 0
    for found in _PATH.finditer(source):
        if any(begin < found.start() < end for begin, end in texts) or source[: found.start()].rstrip().endswith(
            "has("
        ):
            continue
        kind, impossible = _resolved(found, roots)
        path = re.sub(r"\s", "", found[0])
        if impossible is not None and f"has({path}" not in asked:
            made.impossible.append(impossible)
        if kind:
            name = f"typed_{len(made.kinds)}_"
            made.kinds[name] = kind
            made.source += source[at : found.start()] + name
            at = found.end()
    made.source += source[at:]
    return made


def _resolved(found: re.Match[str], roots: Mapping[tuple[str, ...], Any]) -> tuple[str, str | None]:
    """The kind of what the path leads to, and why it leads nowhere. Whole inputs and outputs may be anything."""
    parts: list[str | int] = [found[1]]
    for name, double, single, number in _NAME.findall(found[2]):
        parts.append(int(number) if number else name or double or single)
    begin = next((length for length in (1, 2, 3) if tuple(parts[:length]) in roots), 0)
    if not begin or (begin == len(parts) and found[1] in ("trigger", "steps")):
        return "", None
    schema = roots[tuple(map(str, parts[:begin]))]
    for index, part in enumerate(parts[begin:], begin):
        schema, impossible = _below(schema, part)
        if impossible is not None and index == begin and found[1] in ("trigger", "steps"):
            return "", None  # which fields there are at the top is told with the other references
        if impossible is not None:
            return "", f"{'.'.join(map(str, parts[:index]))} {impossible}"
        if schema is None:
            return "", None
    return _kind(schema), None


def _of(where: str, source: str, roots: Mapping[tuple[str, ...], Any], check: CheckTypes) -> Iterator[Finding]:
    if _UNCLEAR.search(TEXT.sub('""', source)) or _UNCLEAR.search(source):
        return
    typed = _typed(source, roots)
    for text in dict.fromkeys(typed.impossible):
        yield Finding("error", where, text, "Correct the path, or the schema.")
    if not typed.kinds and _CONDITIONS.search(where) is None:
        return
    result, misfits = _checked(typed, check)
    for item in misfits:
        yield _told(where, source, item)
    if _CONDITIONS.search(where) and result not in ("", "bool") and not misfits:
        text = f"the condition {source!r} gives {_WORDS.get(result, 'a ' + result)}, and never true or false"
        yield Finding("error", where, text, "Compare it with something.")


def _checked(typed: _Typed, check: CheckTypes) -> tuple[str, list[Misfit]]:
    """A number may be a whole one or not: what does not fit is what fits neither, whatever the other numbers are."""
    numbers = [name for name, kind in typed.kinds.items() if kind == "number"]
    plain = {name: kind for name, kind in typed.kinds.items() if kind != "number"}
    result, misfits = check(typed.source, plain)
    found = {(item.at, item.operator): item for item in misfits}
    for name in numbers:
        results, both = set(), []
        for kind in ("int", "double"):
            one, wrong = check(typed.source, {**plain, name: kind})
            results |= set() if wrong else {one}
            both.append({(item.at, item.operator): item for item in wrong})
        found |= {key: item for key, item in both[1].items() if key in both[0] and key not in found}
        if not result and results and results.isdisjoint(("", "bool")):
            result = "double"
    return result, [found[key] for key in sorted(found)]


def _told(where: str, source: str, item: Misfit) -> Finding:
    sign = item.operator.replace("@", "").strip("_").replace("_", "") or item.operator
    types = " and ".join(_WORDS.get(kind, f"a {kind}") for kind in item.types)
    if item.harmless:
        always = "always" if sign == "!=" else "never"
        text = f"{sign!r} between {types} is {always} true, in {source!r}"
        return Finding("warning", where, text, "Compare values of one type.")
    mend = "Use values of one type: double(…) and int(…) make numbers of texts, string(…) a text."
    return Finding("error", where, f"{sign!r} is not for {types}, in {source!r}", mend)
