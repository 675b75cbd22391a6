"""Policies speak of typed arguments; what Cedar cannot hold is left out or refused, never shown wrongly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import Misconfigured
from charter.model.policy import ToolFacts
from charter.policies import evaluate
from charter.policies.inputs import Record, Scalar, SetOf, input_type
from tests.policies.build import OPEN, call, manifest, policies, with_schema

PAY = ToolFacts(name="bank__pay", server="bank", risk="high", side_effects="irreversible", idempotent=False)
PAY_TOOL = manifest(
    PAY.name,
    amount_minor={"type": "integer", "_required": True},
    to={"type": "string", "enum": ["alice", "bob"], "_required": True},
    note={"anyOf": [{"type": "string"}, {"type": "null"}]},
    tags={"type": "array", "items": {"type": "string"}},
    rate={"type": "number"},
    extra={"type": "object"},
)
LIMIT = (
    '@id("limit") forbid (principal, action == Charter::Action::"tool.invoke:bank__pay", resource) '
    "when { context.input.amount_minor >= 100000 };"
)


def pay(**arguments: Any) -> Any:
    return evaluate(policies(OPEN + LIMIT, "", PAY_TOOL), call(PAY, input=arguments))


def test_a_policy_judges_the_arguments() -> None:
    assert pay(amount_minor=99_999, to="alice").verdict == "permit"
    denied = pay(amount_minor=100_000, to="alice")
    assert (denied.verdict, denied.policy_ids) == ("deny", ("limit",))


def test_fields_without_a_type_are_not_the_policies_business() -> None:
    assert pay(amount_minor=1, to="bob", rate=1.5, extra={"a": [1.5]}, unknown=3.7, note=None).verdict == "permit"


def test_a_whole_float_is_an_integer_as_json_schema_says() -> None:
    assert pay(amount_minor=100_000.0, to="bob").policy_ids == ("limit",)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"to": "bob"},
        {"amount_minor": None, "to": "bob"},
        {"amount_minor": 1.5, "to": "bob"},
        {"amount_minor": True, "to": "bob"},
        {"amount_minor": "5", "to": "bob"},
        {"amount_minor": 2**63, "to": "bob"},
        {"amount_minor": 1e300, "to": "bob"},
        {"amount_minor": float("nan"), "to": "bob"},
        {"amount_minor": 1, "to": "bob", "tags": ["a", 3]},
        {"amount_minor": 1, "to": "bob", "tags": "a"},
        {"amount_minor": 1, "to": "hunter2\ud800"},
    ],
)
def test_arguments_that_do_not_fit_are_denied_without_being_told(arguments: dict[str, Any]) -> None:
    decision = pay(**arguments)
    assert (decision.verdict, decision.code) == ("deny", "policy_error")
    assert "hunter2" not in str(decision)


def test_a_call_without_its_arguments_is_denied() -> None:
    decision = evaluate(policies(OPEN + LIMIT, "", PAY_TOOL), call(PAY))
    assert (decision.verdict, decision.code) == ("deny", "policy_error")


def test_arguments_matter_only_where_a_policy_speaks_of_them() -> None:
    assert evaluate(policies(OPEN, "", PAY_TOOL), call(PAY, input={"amount_minor": 2**80})).verdict == "permit"
    other = with_schema("bank__list", PAY_TOOL.input_schema)
    listing = PAY.model_copy(update={"name": "bank__list"})
    assert evaluate(policies(OPEN + LIMIT, "", PAY_TOOL, other), call(listing)).verdict == "permit"


def test_a_policy_on_any_tool_asks_first_whether_there_is_such_an_argument() -> None:
    secret = (
        OPEN + '@id("no-secrets") forbid (principal, action in Charter::Action::"tool.invoke", resource) '
        'when { context has input && context.input has path && context.input.path like "secret/*" };'
    )
    read = manifest("casebook__read", path={"type": "string"})
    loaded = policies(secret, "", read, PAY_TOOL)
    assert evaluate(loaded, call(input={"path": "secret/x"})).policy_ids == ("no-secrets",)
    assert evaluate(loaded, call(input={"path": "open/x"})).verdict == "permit"
    assert evaluate(loaded, call(input={})).verdict == "permit"
    assert evaluate(loaded, call(PAY, input={"amount_minor": 1, "to": "bob"})).verdict == "permit"


@pytest.mark.parametrize("field", ["rate", "extra", "nonsense"])
def test_a_policy_on_a_field_that_cedar_cannot_hold_does_not_load(field: str) -> None:
    text = LIMIT.replace("context.input.amount_minor >= 100000", f"context.input.{field} == 1")
    with pytest.raises(Misconfigured, match=field):
        policies(OPEN + text, "", PAY_TOOL)


def test_the_types_are_those_of_the_schema() -> None:
    found = policies(OPEN, "", PAY_TOOL).inputs[PAY.name]
    assert found == Record(
        {
            "amount_minor": (Scalar("Long"), True),
            "to": (Scalar("String"), True),
            "note": (Scalar("String"), False),
            "tags": (SetOf(Scalar("String")), False),
        }
    )


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


BRANCHING = {
    "type": "object",
    "properties": {f"p{i}": {"$ref": "#/$defs/D0"} for i in range(8)},
    "$defs": {
        f"D{level}": {
            "type": "object",
            "properties": {f"p{i}": {"$ref": f"#/$defs/D{level + 1}"} for i in range(8)},
        }
        for level in range(8)
    }
    | {"D8": {"type": "string"}},
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a-b": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/x"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"__cedar": {"type": "string"}}},
        _nested(40),
        BRANCHING,
        {"type": "object", "properties": {"a": {"type": "string", "description": "x" * 300_000}}},
    ],
)
def test_a_schema_that_cannot_be_typed_gives_no_input(schema: dict[str, Any]) -> None:
    tool = with_schema("casebook__read", schema)
    loaded = policies(OPEN, "", tool)
    assert loaded.inputs == {"casebook__read": None}
    assert evaluate(loaded, call(input={"a": 1})).verdict == "permit"


def test_recursion_is_cut() -> None:
    node = {"type": "object", "properties": {"name": {"type": "string"}, "child": {"$ref": "#/$defs/Node"}}}
    found = input_type({**node, "$defs": {"Node": node}})
    assert found is not None
    assert found.fields["name"] == (Scalar("String"), False)


json_types = st.recursive(
    st.sampled_from([{"type": t} for t in ("string", "integer", "number", "boolean", "null")] + [{}, {"enum": ["a"]}]),
    lambda inner: (
        inner.map(lambda s: {"type": "array", "items": s})
        | st.dictionaries(st.sampled_from(["a", "b", "if", "typeChoice0", "x y"]), inner, max_size=3).map(
            lambda p: {"type": "object", "properties": p, "required": list(p)[:1]}
        )
        | st.lists(inner, min_size=1, max_size=3).map(lambda s: {"anyOf": s})
    ),
    max_leaves=8,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), json_types, max_size=2), json_values)
@settings(max_examples=60, deadline=None)
def test_any_schema_and_any_arguments_give_a_decision(properties: dict[str, Any], value: Any) -> None:
    speaks = OPEN + '@id("i") forbid (principal, action, resource) when { context has input && false };'
    tool = with_schema("casebook__read", {"type": "object", "properties": properties, "required": ["a"]})
    arguments = value if isinstance(value, dict) else {"a": value}
    decision = evaluate(policies(speaks, "", tool), call(input=arguments))
    assert decision.verdict in ("permit", "deny")
    assert decision.code in ("permitted", "policy_error")
