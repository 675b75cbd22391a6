"""A tool's arguments as Cedar sees them: ``context.input``, typed by the tool's JSON Schema.

``cedar-policy-mcp-schema-generator`` reads the schema; what it makes is narrowed to what a policy can safely speak of:

* strings of any format or enumeration are ``String``, integers ``Long`` (64 bits), booleans ``Bool``, arrays ``Set``,
  objects records;
* a field that may be null is optional, and null is absent;
* **numbers are left out**: Cedar has no floats. So are free objects, unions, constants and anything recursive. A policy that
  names such a field does not validate, which is better than a condition that never holds;
* arguments that the schema does not name are left out.

A tool whose schema cannot be read this way has no ``context.input``. A call whose arguments do not fit the type is denied
(``UnrepresentableError``) rather than shown to the policies with a hole in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cedar_mcp_schema_generator import generate_schema

from charter.errors import InvalidInput
from charter.model.canonical import canonical

MAX_SCHEMA_BYTES = 256 * 1024
_MAX_PARTS = 2_000
_STUB = "namespace Charter { @mcp_principal entity Caller; @mcp_resource entity Tool; }"
_CONFIG = {"objectsAsRecords": True, "eraseAnnotations": True, "flattenNamespaces": True}
_STRINGS = frozenset({"String", "datetime", "duration", "ipaddr", "decimal"})
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class Scalar:
    """``String``, ``Long`` or ``Bool``."""

    name: str


@dataclass(frozen=True, slots=True)
class SetOf:
    """An array; Cedar keeps neither order nor repetition."""

    item: InputType


@dataclass(frozen=True, slots=True)
class Record:
    """An object: each field's type and whether it must be there."""

    fields: Mapping[str, tuple[InputType, bool]]


InputType = Scalar | SetOf | Record


class UnrepresentableError(Exception):
    """An argument does not fit its type. ``pointer`` is where (RFC 6901); the value itself is not told."""

    def __init__(self, pointer: str, wanted: str) -> None:
        super().__init__(f"{pointer or '/'} is not {wanted}")
        self.pointer = pointer
        self.wanted = wanted


def input_type(input_schema: Mapping[str, Any]) -> Record | None:
    """The type of ``context.input`` for a tool with this JSON Schema; None where there is none to be had."""
    try:
        if len(canonical(dict(input_schema))) > MAX_SCHEMA_BYTES:
            return None
    except InvalidInput:
        return None
    tool = {"name": "tool", "description": "", "inputSchema": input_schema}
    made = generate_schema(_STUB, [tool], config=_CONFIG)
    if not made["isOk"]:
        return None
    namespace = json.loads(made["schemaJson"])["Charter"]
    try:
        found = _Reader(namespace.get("commonTypes", {}), namespace.get("entityTypes", {})).named(
            "toolInput", frozenset()
        )
    except _TooBigError:
        return None
    return found if isinstance(found, Record) else None


class _TooBigError(Exception):
    """The type has more parts than anybody writes a policy for: shared definitions can multiply without end."""


@dataclass(slots=True)
class _Reader:
    """Reads the generator's types; None stands for one that is left out."""

    common: Mapping[str, Any]
    entities: Mapping[str, Any]
    left: int = _MAX_PARTS

    def named(self, name: str, inside: frozenset[str]) -> InputType | None:
        """A type that the generator gave a name; one inside itself is left out."""
        if name in inside or name not in self.common:
            return None
        return self.read(self.common[name], inside | {name})

    def read(self, node: Mapping[str, Any], inside: frozenset[str]) -> InputType | None:
        self.left -= 1
        if self.left < 0:
            raise _TooBigError
        kind = node["type"]
        if kind == "Record":
            if _is_choice(node):
                choice, nullable = _only_choice(node["attributes"])
                return None if choice is None or nullable else self.read(choice, inside)
            return self._record(node["attributes"], inside)
        if kind == "Set":
            item = self.read(node["element"], inside)
            return None if item is None else SetOf(item)
        return self._reference(kind, str(node.get("name", "")).removeprefix("Charter::"), inside)

    def _reference(self, kind: str, name: str, inside: frozenset[str]) -> InputType | None:
        if kind == "Entity":
            return Scalar("String") if "enum" in self.entities.get(name, {}) else None
        if name in _STRINGS:
            return Scalar("String")
        if name in ("Long", "Bool"):
            return Scalar(name)
        return self.named(name, inside)

    def _record(self, attributes: Mapping[str, Any], inside: frozenset[str]) -> Record:
        fields: dict[str, tuple[InputType, bool]] = {}
        for name, node in attributes.items():
            required = node.get("required", True)
            inner: Mapping[str, Any] | None = node
            if _is_choice(node):
                inner, nullable = _only_choice(node["attributes"])
                required = required and not nullable
            found = None if inner is None else self.read(inner, inside)
            # An object of which nothing is known would look empty to a policy whatever it holds.
            if found is not None and found != Record({}):
                fields[name] = (found, required)
        return Record(fields)


def _is_choice(node: Mapping[str, Any]) -> bool:
    """The generator writes a union as a record of ``typeChoice0``, ``typeChoice1``, ..."""
    names = node["attributes"] if node["type"] == "Record" else ()
    return bool(names) and all(name.startswith("typeChoice") for name in names)


def _only_choice(choices: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    """The one choice beside null, if there is exactly one, and whether null is a choice."""
    others = [choice for choice in choices.values() if choice.get("name") != "Charter::Null"]
    return (others[0] if len(others) == 1 else None), len(others) < len(choices)


def represent(value: Any, wanted: InputType, pointer: str = "") -> Any:
    """``value`` as JSON for Cedar. Raises :class:`UnrepresentableError` where it does not fit ``wanted``."""
    if isinstance(wanted, Scalar):
        return _scalar(value, wanted.name, pointer)
    if isinstance(wanted, SetOf):
        if not isinstance(value, (list, tuple)):
            raise UnrepresentableError(pointer, "an array")
        return [represent(item, wanted.item, f"{pointer}/{index}") for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise UnrepresentableError(pointer, "an object")
    out = {}
    for name, (inner, required) in wanted.fields.items():
        if value.get(name) is not None:
            out[name] = represent(value[name], inner, f"{pointer}/{name}")
        elif required:
            raise UnrepresentableError(f"{pointer}/{name}", "there")
    return out


def _scalar(value: Any, name: str, pointer: str) -> Any:
    if name == "String" and isinstance(value, str):
        return value
    if name == "Bool" and isinstance(value, bool):
        return value
    if name == "Long" and not isinstance(value, bool):
        # JSON Schema counts 2.0 as an integer.
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(whole, int) and _LONG_MIN <= whole <= _LONG_MAX:
            return whole
    wanted = {"String": "a string", "Bool": "true or false", "Long": "an integer of 64 bits"}[name]
    raise UnrepresentableError(pointer, wanted)
