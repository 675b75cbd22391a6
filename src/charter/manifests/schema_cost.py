"""A static bound on what one schema makes a validator do at one place of a value.

``allOf`` of two references to an ``allOf`` of two references … doubles the work at each level: thirty lines of
schema keep a processor busy for minutes. Following only the keywords that apply to the *same* place of the value,
the work is a sum over a graph; a schema whose sum passes the cap is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MAX_EXPANSION = 10_000
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("not", "if", "then", "else")
_MAPS = ("dependentSchemas",)


def check_cost(schema: Any) -> None:
    """Raise ``ValueError`` when some place of a value would be checked against more than 10,000 subschemas."""
    known: dict[int, int] = {}
    for node in _nodes(schema):
        if _expansion(node, schema, known, frozenset()) > MAX_EXPANSION:
            raise ValueError(f"it expands to more than {MAX_EXPANSION:,} checks of one value")


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _same_place(node: Mapping[str, Any]) -> Iterator[Any]:
    for key in _LISTS:
        if isinstance(part := node.get(key), list):
            yield from part
    for key in _SINGLE:
        if key in node:
            yield node[key]
    for key in _MAPS:
        if isinstance(part := node.get(key), dict):
            yield from part.values()


def _expansion(node: Any, root: Any, known: dict[int, int], path: frozenset[int]) -> int:
    """How many subschemas apply at one place; a loop counts once, since validators break it."""
    if not isinstance(node, dict) or id(node) in path:
        return 1
    if id(node) in known:
        return known[id(node)]
    inside = path | {id(node)}
    total = 1
    for part in _same_place(node):
        total += _expansion(part, root, known, inside)
    for key in ("$ref", "$dynamicRef"):
        if isinstance(ref := node.get(key), str) and (target := _resolve(root, ref)) is not None:
            total += _expansion(target, root, known, inside)
    total = min(total, MAX_EXPANSION + 1)
    known[id(node)] = total
    return total


def _resolve(root: Any, ref: str) -> Any:
    """The target of a reference by JSON pointer within the document; anchors are few and left out."""
    if not ref.startswith("#"):
        return None
    target = root
    for part in unquote(ref[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, dict) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
            target = target[int(key)]
        else:
            return None
    return target
