"""What is made up satisfies the schema that it was made up for."""

from __future__ import annotations

from typing import Any

import pytest

from charter.manifests.arguments import compile_schema
from charter.manifests.samples import sample


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "minLength": 20}, "b": {}}},
        {"type": "array", "minItems": 2, "items": {"type": "number", "exclusiveMinimum": 2.5}},
        {"type": "integer", "maximum": -3},
        {"type": ["string", "null"], "maxLength": 2},
        {"type": "string", "format": "date-time"},
        {"enum": ["b", "a"]},
        {"const": None},
        {"anyOf": [{"type": "integer", "minimum": 4}, {"type": "string"}]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object", "required": ["y"], "properties": {"y": {"const": 1}}}}},
        {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "boolean"}}}]},
    ],
)
def test_it_fits(schema: dict[str, Any]) -> None:
    assert compile_schema(schema).accepts(sample(schema))
    assert sample(schema) == sample(schema)


def test_a_schema_that_refers_to_itself_ends() -> None:
    endless = {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object", "properties": {"next": {"$ref": "#/$defs/x"}}}}}
    assert isinstance(sample(endless), dict)
    assert sample({"$ref": "#"}) is None
    assert sample({"$ref": "https://elsewhere.invalid/"}) is None


def test_a_default_goes_before_what_is_made_up() -> None:
    assert sample({"type": "integer", "default": 7, "enum": [1, 7]}) == 7
