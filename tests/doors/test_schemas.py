"""How a tool's own schema is listed with the ids that every governed call carries."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.model.tool import ToolManifest
from charter.server.mcp.listing import GovernedListing
from charter.server.mcp.schemas import IDS, NOTICE, listed_input, listed_output

WF = {"workflow_id": "w", "agent_invocation_id": "i"}
TREE: dict[str, Any] = {"type": "object", "properties": {"left": {"$ref": "#"}, "value": {"type": "integer"}}}
DEFS: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$defs": {"even": {"type": "integer", "multipleOf": 2}},
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/even"}, "$ref": {"type": "string"}, "e": {"enum": [{"$ref": "#/x"}]}},
    "required": ["n"],
}


def listed(own: dict[str, Any], **more: Any) -> Any:
    manifest = ToolManifest(
        name="s__t", server="s", upstream_name="t", input_schema=own, definition_hash="sha256:0", **more
    )
    return GovernedListing().of(manifest)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def test_a_plain_object_keeps_its_own_properties_and_keywords() -> None:
    schema, wrapped = listed_input({**DEFS, "additionalProperties": False})
    assert not wrapped
    assert schema["$schema"] == DEFS["$schema"]
    assert accepts(schema, {**WF, "n": 2})
    assert not accepts(schema, {**WF, "n": 3})
    assert not accepts(schema, {"n": 2})
    assert not accepts(schema, {**WF, "n": 2, "more": 1})


@pytest.mark.parametrize(
    "own",
    [
        {"type": "object", "properties": {"workflow_id": {"type": "integer"}}},
        {"type": "object", "properties": {"proposal_id": {"type": "string"}}},
        {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"type": "object", "maxProperties": 2},
        {"type": "object", "patternProperties": {"_id$": {"type": "integer"}}},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}},
        {},
        TREE,
    ],
)
def test_what_is_no_plain_object_or_has_such_a_property_is_wrapped(own: dict[str, Any]) -> None:
    schema, wrapped = listed_input(own)
    assert wrapped
    assert set(schema["properties"]) == {*IDS, "arguments"}
    assert not accepts(schema, WF)


def test_references_inside_a_wrapped_schema_still_lead_to_the_same_place() -> None:
    schema, _ = listed_input(TREE)
    assert accepts(schema, {**WF, "arguments": {"left": {"left": {"value": 1}}}})
    assert not accepts(schema, {**WF, "arguments": {"left": {"left": {"value": "x"}}}})
    shaped, _ = listed_input({**DEFS, "minProperties": 1})
    assert accepts(shaped, {**WF, "arguments": {"n": 2, "$ref": "text", "e": {"$ref": "#/x"}}})
    assert not accepts(shaped, {**WF, "arguments": {"n": 1}})


def test_an_output_schema_allows_the_tools_answer_or_charters_notice() -> None:
    own = {"type": "object", "properties": {"n": {"$ref": "#/$defs/even"}}, "required": ["n"], "$defs": DEFS["$defs"]}
    schema = listed_output(own, objects_only=True)
    assert schema is not None
    assert schema["type"] == "object"
    assert accepts(schema, {"n": 4})
    assert not accepts(schema, {"n": 3})
    assert accepts(schema, {"charter": {"status": "dry_run", "message": "m", "next_step": ""}})
    assert accepts(NOTICE, {"charter": {"status": "dry_run", "message": "m", "next_step": ""}})


def test_before_2026_07_28_an_output_that_is_no_object_is_not_listed() -> None:
    array = {"type": "array", "items": {"type": "integer"}}
    assert listed_output(array, objects_only=True) is None
    modern = listed_output(array, objects_only=False)
    assert modern is not None
    assert accepts(modern, [1])
    assert "outputSchema" not in listed({"type": "object"}, output_schema=array).legacy
    assert "outputSchema" in listed({"type": "object"}, output_schema=array).modern


def test_only_a_schema_that_wants_headers_is_compared_with_them() -> None:
    assert listed({"type": "object"}).header_schema is None
    region = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    assert listed(region).header_schema is not None


names = st.sampled_from(["a", "b", "workflow_id", "agent_invocation_id", "proposal_id", "arguments"])
values = st.one_of(st.integers(), st.text(max_size=5))


@settings(deadline=None)
@given(own=st.dictionaries(names, values, max_size=4))
def test_a_tools_own_arguments_come_out_as_they_went_in(own: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {name: {} for name in own}, "required": list(own)}
    tool = listed(schema)
    sent = {**WF, "arguments": own} if tool.wrapped else {**WF, **own}
    assert accepts(tool.modern["inputSchema"], sent)
    assert tool.own_arguments(sent) == own
