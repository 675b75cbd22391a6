"""Arguments are checked against the tool's schema before anybody is asked or anything is sent."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import InvalidInput, Misconfigured
from charter.manifests.arguments import MAX_BYTES, check_arguments, check_value, compile_schema
from charter.model.tool import ToolManifest

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "password": {"type": "string", "minLength": 12},
        "when": {"type": "string", "format": "date-time"},
        "card": {"type": "object", "properties": {"number": {"type": "string"}}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def tool(schema: dict[str, Any]) -> ToolManifest:
    return ToolManifest(name="a__b", server="a", upstream_name="b", input_schema=schema, definition_hash="sha256:x")


def problems(schema: dict[str, Any], arguments: Any) -> list[dict[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        check_arguments(tool(schema), arguments)
    assert caught.value.error_code == "invalid_arguments"
    assert "describe_tools" in caught.value.next_step
    found: list[dict[str, str]] = caught.value.detail["problems"]
    return found


def test_valid_arguments_come_back_as_they_are() -> None:
    arguments = {"name": "abc", "when": "2026-01-01T00:00:00Z"}
    assert check_arguments(tool(SCHEMA), arguments) is arguments


@pytest.mark.parametrize(
    ("arguments", "pointer", "keyword"),
    [
        ({}, "", "required"),
        ({"name": "ABC"}, "/name", "pattern"),
        ({"name": "a", "when": "tomorrow"}, "/when", "format"),
        ({"name": "a", "card": {"number": 1}}, "/card/number", "type"),
        ({"name": "a", "other": 1}, "", "additionalProperties"),
        ([1], "", "type"),
        ("text", "", "type"),
        (None, "", "type"),
    ],
)
def test_an_error_says_where_what_and_how_to_go_on(arguments: Any, pointer: str, keyword: str) -> None:
    first = problems(SCHEMA, arguments)[0]
    assert (first["pointer"], first["keyword"]) == (pointer, keyword)


def test_every_problem_is_told_at_once_up_to_ten() -> None:
    assert len(problems(SCHEMA, {"name": "A", "password": "x", "when": "y"})) == 3
    many = {"type": "array", "items": {"type": "integer"}}
    assert len(problems({"properties": {"a": many}}, {"a": ["x"] * 50})) == 10


@given(st.text(min_size=1, max_size=11))
def test_a_refused_value_is_never_repeated(secret: str) -> None:
    marked = "S3CR" + secret[:7]
    with pytest.raises(InvalidInput) as caught:
        check_arguments(tool(SCHEMA), {"name": "a", "password": marked})
    assert marked not in str(caught.value.as_json())


@pytest.mark.parametrize("depth", [65, 300, 100_000])
def test_deep_arguments_are_refused_before_they_reach_native_code(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    assert "nested deeper" in problems({}, {"a": value})[0]["message"]


def test_arguments_at_the_depth_limit_pass() -> None:
    value: Any = 1
    for _ in range(63):
        value = {"a": value}
    check_arguments(tool({}), {"a": value})


def test_giant_arguments_are_refused() -> None:
    assert "bytes" in problems({}, {"a": "x" * MAX_BYTES})[0]["message"]


@pytest.mark.parametrize("value", [object(), "\ud800", {1: 2}, 10**400, b"x"])
def test_what_is_not_json_is_refused(value: Any) -> None:
    problems({"properties": {"a": {}}}, {"a": value})


def test_a_regular_expression_bomb_does_not_go_off() -> None:
    schema = compile_schema({"type": "string", "pattern": "^(a+)+$"})
    started = time.process_time()
    assert not schema.accepts("a" * 5_000 + "b")
    assert time.process_time() - started < 5  # a backtracking engine would need longer than the universe has been there


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"pattern": "(?=look)ahead"},
        {"pattern": r"(a)\1"},
        {"pattern": "("},
        {"pattern": "(a{1000}){1000}"},
        {"$ref": "https://example.org/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"$ref": "#/$defs/missing"},
        "text",
    ],
)
def test_a_schema_that_cannot_be_trusted_is_refused_when_it_is_loaded(schema: Any) -> None:
    with pytest.raises(Misconfigured) as caught:
        compile_schema(schema, what="The input schema of a__b")
    assert caught.value.error_code == "unsupported_schema"
    assert caught.value.message.startswith("The input schema of a__b cannot be used")


def test_a_schema_that_doubles_its_work_is_refused() -> None:
    parts: dict[str, Any] = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)}
    with pytest.raises(Misconfigured, match="expands"):
        compile_schema({"$defs": {**parts, "a40": {}}, "$ref": "#/$defs/a0"})


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"properties": {"a": {"$ref": "#"}}}])
def test_schemas_that_refer_to_themselves_end(schema: dict[str, Any]) -> None:
    assert compile_schema(schema).accepts({"a": {"a": 1}})


def test_a_changed_schema_under_the_same_pin_is_compiled_again() -> None:
    check_arguments(tool({"required": ["a"]}), {"a": 1})
    assert problems({"required": ["b"]}, {"a": 1})[0]["keyword"] == "required"


def test_other_values_are_checked_the_same_way() -> None:
    with pytest.raises(InvalidInput, match="the input of demo@1"):
        check_value(compile_schema({"type": "object"}), 1, what="the input of demo@1")
