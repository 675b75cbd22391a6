"""Whether a JSON Schema that a person wrote limits arguments at all: an unknown keyword says nothing, in silence."""

from __future__ import annotations

from typing import Any, Final

from charter.model.base import JsonObject

_NOTES: Final = frozenset(
    [
        "$schema",
        "$id",
        "$anchor",
        "$dynamicAnchor",
        "$vocabulary",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
    ]
)
_PLACES: Final = frozenset(("properties", "patternProperties"))
_LIMITS: Final = frozenset(
    [
        "type",
        "enum",
        "const",
        "multipleOf",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "format",
        "items",
        "prefixItems",
        "additionalItems",
        "contains",
        "maxContains",
        "minContains",
        "uniqueItems",
        "maxItems",
        "minItems",
        "required",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "propertyNames",
        "maxProperties",
        "minProperties",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "$ref",
        "$dynamicRef",
        "$recursiveRef",
    ]
)
"""The keywords of the drafts from 4 to 2020-12 that may refuse a value."""


def unknown_keyword(schema: JsonObject) -> str | None:
    """The first name that is no keyword, in the schema itself or in what it says of an argument; ``x-…`` is a note."""
    known = _NOTES | _PLACES | _LIMITS
    found = next((name for name in schema if name not in known and not name.startswith("x-")), None)
    if found is not None:
        return found
    named = schema.get("properties")
    inner = [item for item in named.values() if isinstance(item, dict)] if isinstance(named, dict) else []
    return next((name for item in inner if (name := unknown_keyword(item)) is not None), None)


def limits(schema: JsonObject) -> bool:
    """False when every arguments object would do, as far as this can be seen: arguments are objects anyway."""
    wanted = schema.get("type")
    free = wanted == "object" or (isinstance(wanted, list) and "object" in wanted)
    return _limits({name: value for name, value in schema.items() if not (free and name == "type")})


def _limits(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return schema is False
    for name, value in schema.items():
        if name in _PLACES and isinstance(value, dict):
            if any(map(_limits, value.values())):
                return True
        elif name in _LIMITS and value is not True and value not in ([], {}):
            return True
    return False
