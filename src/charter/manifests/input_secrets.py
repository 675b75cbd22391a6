"""Secrets that a template asks for in its input. An input is on record in the clear, so there is no place for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from charter.manifests.arguments import MAX_DEPTH, deeper_than
from charter.manifests.finding import Finding

_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE: Final = ("items", "additionalProperties", "contains", "not", "if", "then", "else")


def findings(schema: Any) -> Iterator[Finding]:
    """An error for each part of the input's schema that says of itself that it holds a secret."""
    if deeper_than(schema, MAX_DEPTH):
        return  # which is an error of its own
    for pointer in _secrets(schema, ""):
        text = "the input of a run is on record in the clear, and this part of it is said to be a secret"
        mend = "Keep the secret with the upstream (`charter secret set`), or take it out of the input."
        yield Finding("error", f"/input{pointer}", text, mend)


def _secrets(schema: Any, pointer: str) -> Iterator[str]:
    """JSON pointers of the subschemas with ``writeOnly`` true or the ``format`` ``password``."""
    if not isinstance(schema, dict):
        return
    if schema.get("writeOnly") is True or schema.get("format") == "password":
        yield pointer
        return
    for key in _SINGLE:
        yield from _secrets(schema.get(key), f"{pointer}/{key}")
    for key in _LISTS:
        parts = schema.get(key)
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            yield from _secrets(part, f"{pointer}/{key}/{index}")
    for key in _MAPS:
        parts = schema.get(key)
        for name, part in parts.items() if isinstance(parts, dict) else ():
            escaped = str(name).replace("~", "~0").replace("/", "~1")
            yield from _secrets(part, f"{pointer}/{key}/{escaped}")
