"""JSON Schemas as the door lists them: a governed tool's own schema with the ids that every governed call carries."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from charter.model.base import Json, JsonObject

_ID: Final[JsonObject] = {"type": "string", "maxLength": 200, "pattern": "^[!-~]*$"}
WORKFLOW_ID: Final[JsonObject] = {
    **_ID,
    "description": "The workflow that this belongs to, from start_workflow.",
}
INVOCATION_ID: Final[JsonObject] = {
    **_ID,
    "description": "Your grant for the open step, from start_workflow or get_workflow.",
}
PROPOSAL_ID: Final[JsonObject] = {
    **_ID,
    "description": "The approved proposal that this call runs. It must be for exactly these arguments.",
}
_BEFORE: Final = {"workflow_id": WORKFLOW_ID, "agent_invocation_id": INVOCATION_ID}
IDS: Final = (*_BEFORE, "proposal_id")

_PLAIN: Final = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description", "$schema", "$comment"}
    | {"$defs", "definitions", "dependentRequired", "default", "examples"}
)
_DATA: Final = frozenset({"const", "enum", "default", "examples"})
_DIALECT: Final = "$schema"

NOTICE: Final[JsonObject] = {
    "type": "object",
    "description": "Charter's own answer in the place of the tool's: a dry run, or a result too large to send.",
    "properties": {
        "charter": {
            "type": "object",
            "properties": {
                "status": {"type": "string"},
                "message": {"type": "string"},
                "next_step": {"type": "string"},
                "result_uri": {"type": "string"},
                "result_bytes": {"type": "integer"},
            },
            "required": ["status", "message", "next_step"],
        }
    },
    "required": ["charter"],
    "additionalProperties": False,
}


ERROR: Final[JsonObject] = {
    "type": "object",
    "description": "An error in the place of the answer: what is wrong, and what to do.",
    "properties": {
        "code": {"type": "string", "description": "Stays the same over versions."},
        "message": {"type": "string"},
        "next_step": {"type": "string"},
        "detail": {"type": "object"},
    },
    "required": ["code", "message", "next_step"],
}
"""Listed with every output schema: TypeScript clients of the older revisions check errors against it too."""


def listed_input(own: JsonObject) -> tuple[JsonObject, bool]:
    """A governed tool's input schema as listed, and whether its own arguments stand under ``arguments``.

    Plain object schemas get the ids beside their own properties; any other one is wrapped whole.
    """
    if not _takes_ids(own):
        return _wrapped(own), True
    kept = {key: value for key, value in own.items() if key not in ("default", "examples")}
    properties = {**_BEFORE, **own.get("properties", {}), "proposal_id": PROPOSAL_ID}
    return {**kept, "properties": properties, "required": [*_BEFORE, *own.get("required", ())]}, False


def _takes_ids(own: JsonObject) -> bool:
    if own.get("type") != "object" or any(key not in _PLAIN and not key.startswith("x-") for key in own):
        return False
    properties = own.get("properties", {})
    if not isinstance(properties, dict) or not isinstance(own.get("required", []), list):
        return False
    return not any(name in properties for name in IDS) and not _refers_to_root(own)


def _refers_to_root(node: Json) -> bool:
    """True for a recursive schema: with ids at its root it would ask for them at every level."""
    if isinstance(node, list):
        return any(_refers_to_root(item) for item in node)
    if not isinstance(node, dict):
        return False
    if node.get("$ref") == "#" or "$dynamicRef" in node or "$recursiveRef" in node:
        return True
    return any(_refers_to_root(value) for key, value in node.items() if key not in _DATA)


def _wrapped(own: JsonObject) -> JsonObject:
    dialect = {_DIALECT: own[_DIALECT]} if isinstance(own.get(_DIALECT), str) else {}
    arguments = embedded(own, "#/properties/arguments")
    return {
        **dialect,
        "type": "object",
        "properties": {**_BEFORE, "arguments": arguments, "proposal_id": PROPOSAL_ID},
        "required": [*_BEFORE, "arguments"],
        "additionalProperties": False,
    }


def listed_output(own: JsonObject | None, *, objects_only: bool) -> JsonObject | None:
    """The output schema as listed: the tool's own, or Charter's notice or error. None where there is none to list.

    ``objects_only``: before 2026-07-28 structured content is always an object.
    """
    if own is None or (objects_only and own.get("type") != "object"):
        return None
    root = {"type": "object"} if own.get("type") == "object" else {}
    dialect = {_DIALECT: own[_DIALECT]} if isinstance(own.get(_DIALECT), str) else {}
    return {**dialect, **root, "anyOf": [embedded(own, "#/anyOf/0"), NOTICE, ERROR]}


def or_error(own: JsonObject, *others: JsonObject) -> JsonObject:
    """The output schema of one of Charter's own tools: its properties stay at the top, where readers look for them.

    ``others``: what it answers in other cases. A property that stands in several of them is described by the first.
    """
    kept = {key: value for key, value in own.items() if key not in ("required", "additionalProperties")}
    answers = (own, *others)
    properties: JsonObject = {**ERROR["properties"]}
    definitions: JsonObject = {}
    for answer in reversed(answers):
        properties |= answer["properties"]
        definitions |= answer.get("$defs", {})
    either: list[Json] = [{"required": answer.get("required", [])} for answer in (*answers, ERROR)]
    out = {**kept, "properties": properties, "anyOf": either}
    return {**out, "$defs": definitions} if definitions else out


def embedded(schema: JsonObject, at: str) -> JsonObject:
    """The schema for use at ``at`` of another one: references to its own root (``#``, ``#/…``) lead there."""
    if "$id" in schema:  # a resource of its own: its references stay inside it wherever it stands
        return schema
    moved: JsonObject = _moved({key: value for key, value in schema.items() if key != _DIALECT}, at)
    return moved


def _moved(node: Json, at: str) -> Any:
    if isinstance(node, list):
        return [_moved(item, at) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: value if key in _DATA else _moved(value, at) for key, value in node.items()}
    reference = out.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        out["$ref"] = at + reference[1:]
    return out


def of_model(model: type[BaseModel]) -> JsonObject:
    """A model's JSON Schema without pydantic's titles; the caller's own."""
    schema: JsonObject = _untitled(_of_model(model))
    return schema


@cache
def _of_model(model: type[BaseModel]) -> JsonObject:
    return model.model_json_schema(mode="validation")


def _untitled(node: Json) -> Any:
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _untitled(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
