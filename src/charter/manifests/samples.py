"""A value of the shape that a JSON Schema asks for: what a simulated tool answers where nobody says better.

The same schema always gives the same value: constants, defaults, examples and first choices before made-up ones, required
members before none. It is a shape, not a likely answer; a schema that asks for more than that gives a value that its own
check refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from charter.model.base import Json, JsonObject

MAX_DEPTH: Final = 16
_FORMATS: Final = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "somebody@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: JsonObject) -> Json:
    """The value. ``$ref`` is followed within the schema alone; deeper than 16 levels there is null."""
    return _of(schema, schema, 0)


def filled(value: Json, schema: JsonObject, missing: Callable[[Json], bool]) -> Json:
    """The value, with what is ``missing`` in it replaced by a sample of that part of the schema; by a text where the schema
    says nothing of it."""
    return _filled(value, schema, schema, missing, 0)


def _filled(value: Json, schema: Any, root: JsonObject, missing: Callable[[Json], bool], depth: int) -> Json:
    part = _whole(schema, root) if isinstance(schema, dict) and depth <= MAX_DEPTH else {}
    if missing(value):
        made = _of(part, root, depth)
        return made if made is not None else "(withheld)"
    if isinstance(value, dict):
        known, others = part.get("properties"), part.get("additionalProperties")
        named = known if isinstance(known, dict) else {}
        return {key: _filled(each, named.get(key, others), root, missing, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, part.get("items"), root, missing, depth + 1) for each in value]
    return value


def _of(schema: Any, root: JsonObject, depth: int) -> Json:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    schema = _whole(schema, root)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    for name in ("enum", "examples"):
        if isinstance(schema.get(name), list) and schema[name]:
            return schema[name][0]
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list) and schema[name]:
            rest = {key: value for key, value in schema.items() if key != name}
            return _of({**rest, **_whole(schema[name][0], root)}, root, depth + 1)
    return _made(schema, root, depth)


def _made(schema: JsonObject, root: JsonObject, depth: int) -> Json:
    kind: Any = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and "properties" in schema):
        members: Any = schema.get("properties") or {}
        needed: Any = schema.get("required") or ()
        names = dict.fromkeys([*members, *needed])
        return {str(name): _of(members.get(name, {}), root, depth + 1) for name in names}
    if kind == "array":
        count: Any = schema.get("minItems", 0)
        return [_of(schema.get("items", {}), root, depth + 1) for _ in range(min(int(count), 100))]
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return False
    return _text(schema) if kind == "string" else None


def _number(schema: JsonObject) -> Json:
    low: Any = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = int(str(schema["exclusiveMinimum"]).partition(".")[0]) + 1
    high: Any = schema.get("maximum", low)
    if low is None:
        low = high if high is not None and high < 0 else 0
    return low


def _text(schema: JsonObject) -> str:
    text = _FORMATS.get(str(schema.get("format")), "simulated")
    short: Any = schema.get("maxLength", len(text))
    long: Any = schema.get("minLength", 0)
    return text[: int(short)].ljust(min(int(long), 10_000), "x")


def _whole(schema: Any, root: JsonObject) -> JsonObject:
    """With what it refers to, and all of ``allOf``, put into one."""
    found: JsonObject = dict(schema) if isinstance(schema, dict) else {}
    for _ in range(MAX_DEPTH):
        reference, parts = found.pop("$ref", None), found.pop("allOf", None)
        if reference is None and parts is None:
            break
        if isinstance(reference, str):
            found = {**_at(root, reference), **found}
        for part in parts if isinstance(parts, list) else ():
            found = _merged(found, part)
    return found


def _merged(one: JsonObject, other: Any) -> JsonObject:
    if not isinstance(other, dict):
        return one
    out: dict[str, Any] = {**other, **one}
    for name, join in (("properties", dict), ("required", list)):
        first: Any = one.get(name)
        second: Any = other.get(name)
        if first and second:
            out[name] = {**second, **first} if join is dict else [*first, *second]
    return out


def _at(root: JsonObject, reference: str) -> JsonObject:
    found: Any = root
    if not reference.startswith("#"):
        return {}
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
