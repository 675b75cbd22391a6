"""What of a call may be recorded, traced and shown, as its tool manifest says.

``sensitive_arguments`` and ``sensitive_results`` are JSON pointers (RFC 6901) in which ``*`` matches every member of
one level. Redaction fails closed: where a pointer leads through a value that has not the expected shape, that whole
value is withheld. A withheld value leaves no trace of itself, neither its length nor a digest, because a plain
digest of a short secret can be guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from charter.manifests.plain_text import one_line, plain
from charter.model.approval import ShownField
from charter.model.base import Json, JsonObject
from charter.model.tool import ShownArgument, ToolManifest

MARKER_KEY: Final = "$redacted"
MAX_FIELDS = 40
WITHHELD_BLOCK: Final[JsonObject] = {
    "type": "text",
    "text": "[withheld: the tool manifest says that this tool's results are sensitive]",
}
_HIDDEN = "•••••• (sensitive, not shown)"
_MISSING: Final = object()


def marker() -> JsonObject:
    """What stands in the place of a withheld value."""
    return {MARKER_KEY: True}


def is_marker(value: Json) -> bool:
    """Whether ``value`` is a withheld one."""
    return isinstance(value, dict) and value.get(MARKER_KEY) is True and len(value) == 1


def redact(manifest: ToolManifest, arguments: JsonObject) -> tuple[JsonObject, bool]:
    """The arguments with sensitive values replaced by markers, and whether there were any. The original is not changed."""
    redacted, hit = redact_at(manifest.sensitive_arguments, arguments)
    return (redacted if isinstance(redacted, dict) else marker()), hit


def redact_result(
    manifest: ToolManifest, content: Sequence[JsonObject], structured: Json
) -> tuple[tuple[JsonObject, ...], Json, bool]:
    """Content blocks and structured content fit for the record, and whether anything was withheld.

    Where a manifest names any sensitive result, all content blocks are withheld: their text repeats the structured content.
    """
    if not manifest.sensitive_results:
        return tuple(content), structured, False
    redacted, hit = redact_at(manifest.sensitive_results, structured) if structured is not None else (None, False)
    return ((WITHHELD_BLOCK,) if content else ()), redacted, hit or bool(content)


def redact_at(pointers: Iterable[str], value: Json) -> tuple[Json, bool]:
    """A copy of ``value`` with what the pointers name replaced by markers, and whether anything was."""
    hit = False
    for pointer in pointers:
        value, found = _replace(value, parse_pointer(pointer))
        hit = hit or found
    return value, hit


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """The tokens of a JSON pointer; raises ``ValueError`` for one that does not begin with ``/`` (``""`` is the whole)."""
    if pointer == "":
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON pointer: it must be empty or begin with /")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))


def _replace(value: Json, tokens: tuple[str, ...]) -> tuple[Json, bool]:
    if is_marker(value):
        return value, False
    if not tokens:
        return marker(), True
    if isinstance(value, dict):
        return _replace_in_object(value, tokens)
    if isinstance(value, list | tuple):
        return _replace_in_list(list(value), tokens)
    # A scalar where an object was expected: what should be withheld may be inside it.
    return (value, False) if value is None else (marker(), True)


def _replace_in_object(value: JsonObject, tokens: tuple[str, ...]) -> tuple[Json, bool]:
    token, rest = tokens[0], tokens[1:]
    keys = list(value) if token == "*" else [key for key in (token,) if key in value]  # noqa: S105 - a wildcard
    copy, hit = dict(value), False
    for key in keys:
        copy[key], found = _replace(value[key], rest)
        hit = hit or found
    return copy, hit


def _replace_in_list(value: list[Json], tokens: tuple[str, ...]) -> tuple[Json, bool]:
    token, rest = tokens[0], tokens[1:]
    if token == "*":  # noqa: S105 - a wildcard
        indexes = list(range(len(value)))
    elif token.isascii() and token.isdigit():
        indexes = [int(token)] if int(token) < len(value) else []
    else:
        return (marker(), True) if value else (value, False)
    copy, hit = list(value), False
    for index in indexes:
        copy[index], found = _replace(value[index], rest)
        hit = hit or found
    return copy, hit


def shown_fields(manifest: ToolManifest, arguments: JsonObject) -> tuple[ShownField, ...]:
    """What an approver sees of the arguments: the manifest's fields first and as it says, then every other one, summarised.

    Nothing is left out in silence: beyond forty fields the rest is counted. Values are plain text (see ``plain_text``).
    """
    redacted, _ = redact(manifest, arguments)
    if is_marker(redacted):
        return (ShownField(label="arguments", value=_HIDDEN),)
    fields = [_field(item, redacted) for item in manifest.show]
    covered = {parse_pointer(item.pointer)[:1] for item in manifest.show}
    rest = [] if () in covered else [key for key in redacted if (key,) not in covered]
    how: Any = "summarised" if manifest.show else "whole"
    fields += [_field(ShownArgument(pointer=_escape(key), how=how), redacted) for key in rest[:MAX_FIELDS]]
    if len(rest) > MAX_FIELDS:
        fields.append(ShownField(label="…", value=f"{len(rest) - MAX_FIELDS} more arguments are not shown"))
    return tuple(fields)


def _escape(key: str) -> str:
    return "/" + key.replace("~", "~0").replace("/", "~1")


def _field(item: ShownArgument, arguments: JsonObject) -> ShownField:
    tokens = parse_pointer(item.pointer)
    label = one_line(item.label or ".".join(tokens) or "arguments")
    value = _value_at(arguments, tokens)
    if value is _MISSING:
        return ShownField(label=label, value="(not given)")
    if is_marker(value):
        return ShownField(label=label, value=_HIDDEN)
    return ShownField(label=label, value=_WAYS[item.how](value))


def _value_at(value: Json, tokens: tuple[str, ...]) -> Any:
    """The value there; a list of values where the pointer has a ``*``; a marker where one stands on the way."""
    for position, token in enumerate(tokens):
        if is_marker(value):
            return value
        if token == "*" and isinstance(value, dict | list):  # noqa: S105 - a wildcard
            members = value.values() if isinstance(value, dict) else value
            inner = [_value_at(member, tokens[position + 1 :]) for member in members]
            return [member for member in inner if member is not _MISSING]
        if isinstance(value, dict) and token in value:
            value = value[token]
        elif isinstance(value, list) and token.isascii() and token.isdigit() and int(token) < len(value):
            value = value[int(token)]
        else:
            return _MISSING
    return value


def _as_text(value: Json, option: int = orjson.OPT_INDENT_2) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, option=option).decode()
    except (TypeError, ValueError):
        return repr(value)


def _whole(value: Json) -> str:
    return plain(_as_text(value)) or "(empty)"


def _masked(value: Json) -> str:
    text = _as_text(value)
    return "••••••" + plain(text[-4:]) if isinstance(value, str | int) and len(text) >= 12 else "••••••"


def _counted(value: Json) -> str:
    if isinstance(value, str):
        lines = value.count("\n") + 1
        return f"{len(value):,} characters" + (f" in {lines:,} lines" if lines > 1 else "")
    if isinstance(value, list | dict):
        unit = "item" if isinstance(value, list) else "field"
        return f"{len(value):,} {unit}{'' if len(value) == 1 else 's'}"
    return "one value"


def _summarised(value: Json) -> str:
    if isinstance(value, list | dict):
        return f"{_counted(value)}: {plain(_as_text(value, 0), limit=200)}" if value else _counted(value)
    return plain(_as_text(value), limit=200) or "(empty)"


_WAYS = {"whole": _whole, "masked": _masked, "counted": _counted, "summarised": _summarised}
