"""Values and conditions of other dialects as CEL: paths, ``${…}``, comparisons. Text that only looks like ours stays text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from charter.manifests.dialects.reading import Node, Notes, UnreadableError
from charter.model.base import Json

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PART: Final = re.compile(r"\.?([\w@$:-]+)|\[(\d+)\]|\[(?:\"([^\"]+)\"|'([^']+)')\]")
_DOLLAR: Final = re.compile(r"\$\{([^{}]*)\}")
_RESERVED: Final = frozenset(
    [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "null",
        "namespace",
        "package",
        "return",
        "true",
        "var",
        "void",
        "while",
    ]
)


def literal(value: Json) -> str:
    """A JSON value as CEL."""
    return json.dumps(value, ensure_ascii=False)


def parts_of(path: str) -> list[str | int] | None:
    """The names and numbers of ``a.b[0]["c d"]``, or None where it is no path."""
    out: list[str | int] = []
    at = 0
    while at < len(path):
        found = _PART.match(path, at)
        if found is None or (at == 0 and path.startswith(".")):
            return None
        name, number, double, single = found.groups()
        out.append(int(number) if number is not None else (name or double or single).strip())
        at = found.end()
    return out or None


def cel_path(root: str, parts: list[str | int]) -> str:
    """A path from a root as CEL: names that are no identifiers go into brackets."""
    return root + "".join(
        f"[{item}]" if isinstance(item, int) else f".{item}" if _plain(item) else f"[{literal(item)}]" for item in parts
    )


def _plain(name: str) -> bool:
    return _IDENTIFIER.fullmatch(name) is not None and name not in _RESERVED


def there(root: str, parts: list[str | int]) -> str:
    """CEL that is true when the whole path is there, and never an error for a missing part."""
    asked = []
    for number, item in enumerate(parts):
        before = cel_path(root, parts[:number])
        if isinstance(item, int):
            asked.append(f"size({before}) > {item}")
        else:
            asked.append(f"has({before}.{item})" if _plain(item) else f"{literal(item)} in {before}")
    return " && ".join(asked)


# -- comparisons

_COMPARE: Final[dict[str, tuple[str, bool]]] = {
    # CEL, and whether a field that is missing simply does not match. An order has no answer without a value: an error.
    "eq": ("{f} == {v}", True),
    "ne": ("{f} != {v}", False),
    "gt": ("{f} > {v}", False),
    "gte": ("{f} >= {v}", False),
    "lt": ("{f} < {v}", False),
    "lte": ("{f} <= {v}", False),
    "in": ("{f} in {v}", True),
    "not_in": ("!({f} in {v})", False),
    "contains": ("(type({f}) == list ? {v} in {f} : {f}.contains({v}))", True),
    "starts_with": ("{f}.startsWith({v})", True),
    "ends_with": ("{f}.endsWith({v})", True),
    "matches": ("{f}.matches({v})", True),
}
_ALSO: Final = {
    **{"==": "eq", "=": "eq", "equals": "eq", "!=": "ne", "neq": "ne", "not_equals": "ne", ">": "gt", ">=": "gte"},
    **{"ge": "gte", "<": "lt", "<=": "lte", "le": "lte", "nin": "not_in", "regex": "matches"},
}
OPERATORS: Final = (*_COMPARE, "exists")
_ORDERS: Final = ("gt", "gte", "lt", "lte")
_NUMBER: Final = re.compile(r"\s*[-+]?(\d[\d_,. ]*|\.\d+)([eE][-+]?\d+)?\s*")


def comparison(node: Node, root: str) -> str | None:
    """``{field, op, value}`` as CEL; None where something is wrong, which is told."""
    field = node.text("field")
    parts = parts_of(field)
    named = node.take("op", node.take("operator"))
    op = _ALSO.get(str(named), str(named))
    given = "value" in node
    value = node.take("value")
    node.done("field op value")
    if parts is None:
        node.notes.error(
            node.at("field"), f"{field[:80]!r} is no path", "Write names with dots between them: metadata.type."
        )
        return None
    if op not in OPERATORS:
        mend = f"Use one of: {', '.join(OPERATORS)}."
        node.notes.error(node.at("op"), f"the operator {str(named)[:40]!r} is not known", mend)
        return None
    if op == "exists":
        return there(root, parts) if value is not False else f"!({there(root, parts)})"
    if not given or (op in ("in", "not_in") and not isinstance(value, list)):
        node.notes.error(node.at("value"), f"{op!r} needs a {'list' if given else 'value'}", "Write it as `value`.")
        return None
    if op in _ORDERS and not _orderly(value):
        text = f"{op!r} needs a number, and this is {'a number in quotes' if isinstance(value, str) else 'none'}"
        node.notes.error(node.at("value"), text, "Write the number as it is: 1000.")
        return None
    cel, guarded = _COMPARE[op]
    made = cel.format(f=cel_path(root, parts), v=literal(value))
    return f"{there(root, parts)} && {made}" if guarded else made


def _orderly(value: Json) -> bool:
    """Numbers, and texts such as dates; not numbers as texts, of which "999" is more than "1000"."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is None
    return isinstance(value, int | float) and not isinstance(value, bool)


def conditions(node: Node, root: str) -> str | None:
    """``conditions`` as one CEL expression: all of them, or any where ``logic`` says so. None where there are none."""
    logic = node.one_of("logic", ("all", "any", "and", "or"), "all")
    made = []
    for item in node.nodes("conditions", "a condition"):
        try:
            one = comparison(item, root)
        except UnreadableError:
            continue
        made += [one] if one else []
    if not made:
        return None
    between = " && " if logic in ("all", "and") else " || "
    return made[0] if len(made) == 1 else between.join(f"({item})" for item in made)


# -- values


def each_text(value: Json, change: Callable[[str], str]) -> Json:
    """The same JSON with every text changed."""
    if isinstance(value, dict):
        return {key: each_text(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [each_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def from_dollars(value: Json, where: str, notes: Notes, roots: Mapping[str, str]) -> Json:
    """``${root.path}`` as ``{{ CEL }}``; braces of the document's own are text there, and stay it."""

    def one(found: re.Match[str]) -> str:
        parts = parts_of(found[1].strip())
        root = roots.get(str(parts[0])) if parts else None
        if parts is None or root is None:
            mend = f"Write a path that begins with one of: {', '.join(roots)}."
            notes.error(where, f"{found[0][:80]!r} names nothing that is known", mend)
            return ""
        return "{{ " + cel_path(root, parts[1:]) + " }}"

    def change(text: str) -> str:
        out, at = [], 0
        for found in _DOLLAR.finditer(text):
            out += [_plain_text(text[at : found.start()]), one(found)]
            at = found.end()
        if "${" in _DOLLAR.sub("", text):
            notes.warn(where, "a '${' is not closed, so it stays text", "Close it with `}`, with a path between.")
        return "".join([*out, _plain_text(text[at:])])

    return each_text(value, change)


def _plain_text(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


_NUMBERED: Final = re.compile(r"\bsteps(?:\.(\d+)\b|\[\s*(\d+)\s*\])")
_PLACEHOLDER: Final = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def numbered(source: str, ids: list[str]) -> str:
    """CEL in which steps are named by their number, from 0, with their ids."""

    def name(found: re.Match[str]) -> str:
        number = int(found[1] or found[2])
        return f"steps.{ids[number]}" if number < len(ids) else f"steps.there_is_no_step_{number}"

    return _NUMBERED.sub(name, source)


def numbered_values(value: Json, ids: list[str]) -> Json:
    """The same for every ``{{ }}`` of a JSON value."""
    return each_text(value, lambda text: _PLACEHOLDER.sub(lambda found: "{{" + numbered(found[1], ids) + "}}", text))
