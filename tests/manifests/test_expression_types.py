"""What does not fit the types of a template's input and outputs, and that nothing which runs is called wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.manifests.arguments import compile_schema
from charter.manifests.finding import Finding
from charter.manifests.installed_checks import Installation
from charter.manifests.template_checks import validate
from charter.model.template import Template
from charter.model.tool import ToolManifest
from charter.workflows.expression_types import check
from charter.workflows.expressions import ExpressionError, evaluate, problem

PROPERTIES: dict[str, Any] = {
    "amount": {"type": "number"},
    "rate": {"type": "number"},
    "cents": {"type": "integer"},
    "kind": {"type": "string", "enum": ["travel", "meals"]},
    "urgent": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "maybe": {"type": ["string", "null"]},
    "who": {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    },
    "open": {"type": "object"},
    "any": {},
}
INPUT = {"type": "object", "additionalProperties": False, "required": list(PROPERTIES), "properties": PROPERTIES}
ASK = {
    "id": "ask",
    "type": "agent",
    "output_schema": {"type": "object", "required": ["score"], "properties": {"score": {"type": "integer"}}},
}
LOOK = {"id": "look", "type": "action", "tool": "box__look", "arguments": {}}
TOOL = ToolManifest(
    name="box__look",
    server="box",
    upstream_name="look",
    description="",
    input_schema={"type": "object"},
    output_schema={"type": "object", "properties": {"count": {"type": "integer"}, "state": {"type": "string"}}},
    definition_hash="sha256:0",
    risk="low",
    side_effects="none",
)


def found(*steps: dict[str, Any], **top: Any) -> list[Finding]:
    template = Template.model_validate({"name": "t", "version": "1", "input": INPUT, "steps": list(steps), **top})
    here = Installation(manifests={TOOL.name: TOOL})
    return validate(template, installation=here, check_expression=problem, check_types=check)


def condition(expression: str) -> dict[str, Any]:
    return {"id": "c", "type": "condition", "expression": expression, "if_true": ["end"]}


END = {"id": "end", "type": "wait", "seconds": 1}


def judged(expression: str) -> list[tuple[str, str]]:
    items = found(ASK, LOOK, condition(expression), END)
    assert all(item.mend and item.where == "/steps/2/expression" for item in items), items
    return [(item.level, item.text) for item in items]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ('trigger.amount > "100"', "'>' is not for a number and a text"),
        ('"100" <= trigger.cents', "'<=' is not for a text and a whole number"),
        ("trigger.cents", "gives a whole number, and never true or false"),
        ("trigger.amount", "gives a number, and never true or false"),
        ("trigger.amount + 1", "gives a number, and never true or false"),
        ("trigger.kind", "gives a text, and never"),
        ("string(trigger.any)", "gives a text, and never"),
        ("trigger.tags", "gives a list, and never"),
        ('trigger.amount.contains("9")', "'contains' is not for a number and a text"),
        ("trigger.cents.startsWith('1')", "'startsWith' is not for a whole number and a text"),
        ("trigger.kind.matches(trigger.cents)", "'matches' is not for a text and a whole number"),
        ("trigger.kind + trigger.cents == ''", "'+' is not for a text and a whole number"),
        ("trigger.cents * 1.5 > 2.0", "'*' is not for a whole number and a number"),
        ("trigger.urgent && trigger.kind", "'&&' is not for true or false and a text"),
        ("!trigger.kind", "'!' is not for a text"),
        ("size(trigger.cents) > 1", "'size' is not for a whole number"),
        ("trigger.tags.exists(t, t > 5)", "'>' is not for a text and a whole number"),
        ("trigger.tags[0] > 3", "'>' is not for a text and a whole number"),
        ('trigger["who"]["age"] > "x"', "'>' is not for a whole number and a text"),
        ("trigger.who.nmae == 'x'", "trigger.who has no field 'nmae'; its schema knows: name, age"),
        ("trigger.amount.value > 1", "trigger.amount is a number and has no field 'value'"),
        ("trigger.tags.first == 'x'", "trigger.tags is a list and has no field 'first'"),
        ('steps.ask.output.score > "5"', "'>' is not for a whole number and a text"),
        ("steps.look.output.count", "gives a whole number, and never"),
        ("steps['look'].output.state > 5", "'>' is not for a text and a whole number"),
    ],
)
def test_what_would_fail_is_an_error(expression: str, says: str) -> None:
    [(level, text)] = judged(expression)
    assert (level, says in text) == ("error", True), text


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("trigger.kind == 5", "'==' between a text and a whole number is never true"),
        ("trigger.urgent != 'true'", "'!=' between true or false and a text is always true"),
        ("trigger.cents in ['1', '2']", "'in' between a whole number and a list(string) is never true"),
    ],
)
def test_what_is_never_equal_is_a_warning(expression: str, says: str) -> None:
    assert [(level, says in text) for level, text in judged(expression)] == [("warning", True)], judged(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "trigger.amount > 100 && trigger.amount <= 100.5",
        "trigger.amount * 2 > 10 || trigger.amount * 2.0 > 10.0",
        "trigger.cents % 2 == 0 && trigger.amount * 1.5 > 2.0",
        "trigger.cents == 5.0 && trigger.cents > 1.5",
        "trigger.cents in [1.0, 2.0]",
        "trigger.kind == null",
        "trigger.maybe > 'a' || trigger.maybe == 5",
        "trigger.any > 5 && trigger.any.x.y == 'z'",
        "trigger.open.x > 5",
        "(trigger.urgent ? trigger.cents : trigger.kind) == 5",
        "type(trigger.kind) == int && trigger.kind > 5",
        "dyn(trigger.kind) == 5",
        "has(trigger.who.age) && trigger.who.age > 5",
        "has(trigger.who.nmae) && trigger.who.nmae > 5",
        "'trigger.amount' > 'a'",
        "trigger.tags.all(t, t.size() > 1) && 'x' in trigger.tags",
        "trigger.tags + [1] == []",
        "timestamp(trigger.kind) > timestamp('2026-01-01T00:00:00Z')",
        "steps.ask.output.score > 0 && steps.ask.output.other == 'x'",
        "double(trigger.kind) > 5.0",
    ],
)
def test_what_may_run_is_not_told(expression: str) -> None:
    assert [item for item in judged(expression) if "has no field 'other'" not in item[1]] == []


def test_values_and_gates_are_looked_at_too() -> None:
    evidence = {"tool": "box__look", "arguments": {}}
    checks = [
        {"id": "a", "expression": "artifacts.plan.pages > 'x'"},
        {"id": "b", "expression": "evidence.count", "evidence": evidence},
    ]
    plan = {"type": "object", "properties": {"pages": {"type": "integer"}}}
    work = {"id": "w", "type": "agent", "artifacts": [{"name": "plan", "schema": plan}], "gate": {"checks": checks}}
    call = {**LOOK, "arguments": {"a": "{{ trigger.kind + 1 }}", "b": "for {{ trigger.cents.contains('x') }}"}}
    poll = {"id": "p", "type": "wait", "poll": {"tool": "box__look", "until": "result.state", "every_seconds": 5}}
    items = found(work, call, poll, output="{{ trigger.kind - 1 }}")
    assert [(item.level, item.where) for item in items] == [
        ("error", "/output"),
        ("error", "/steps/0/gate/checks/0/expression"),
        ("error", "/steps/0/gate/checks/1/expression"),
        ("error", "/steps/1/arguments"),
        ("error", "/steps/1/arguments"),
        ("error", "/steps/2/poll/until"),
    ]


VALUES = {
    "amount": st.one_of(st.integers(-9, 9), st.floats(-9, 9)),
    "rate": st.one_of(st.integers(-9, 9), st.floats(-9, 9)),
    "cents": st.integers(-9, 9),
    "kind": st.sampled_from(["travel", "meals"]),
    "urgent": st.booleans(),
    "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
    "maybe": st.one_of(st.none(), st.just("a")),
    "who": st.fixed_dictionaries({"name": st.just("n"), "age": st.integers(0, 9)}),
    "any": st.one_of(st.none(), st.integers(0, 3), st.just("a"), st.booleans()),
}
OPERANDS = st.sampled_from(
    [*(f"trigger.{name}" for name in VALUES), "trigger.who.age", "trigger.tags[0]", "1", "1.5", "'a'", "null", "true"]
)
TERMS = st.builds(
    "{} {} {}".format, OPERANDS, st.sampled_from(["<", "==", "!=", "+", "*", "-", "in", "&&", "||"]), OPERANDS
)
SOURCES = st.one_of(TERMS, st.builds("({}) {} ({})".format, TERMS, st.sampled_from(["&&", "==", "||"]), TERMS))
SOUND = compile_schema({**INPUT, "required": list(VALUES)})


@settings(max_examples=60, deadline=None)
@given(source=SOURCES, trigger=st.fixed_dictionaries(VALUES))
def test_what_is_called_an_error_never_gives_true_or_false_to_any_input(source: str, trigger: dict[str, Any]) -> None:
    """A false alarm would refuse a template that runs: an expression told as wrong fails, or is no condition."""
    if problem(source) is not None or not any(level == "error" for level, _ in judged(source)):
        return
    assert SOUND.accepts(trigger)
    if "&&" in source or "||" in source:
        return  # what is decided by its other half does not fail
    try:
        value = evaluate(source, {"trigger": trigger})
    except ExpressionError:
        return
    assert not isinstance(value, bool), (source, trigger, judged(source))
