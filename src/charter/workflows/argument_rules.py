"""Rules for the arguments of an agent step's tools: paths, commands and patterns. Strict: what cannot be judged is refused.

No rule follows links or knows a file system, a shell or a disguise that the tool itself would undo: a rule narrows what a
tool is asked for, and is no sandbox around it. Nothing here backtracks, so a long argument costs its length times the
pattern's.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import Any

from charter.errors import CharterError
from charter.model.base import JsonObject
from charter.model.phase import ArgumentRule
from charter.workflows import expressions

MAX_TEXT = 4096
_SHELL = re.compile(r"[;&|`$<>(){}\n\r\\*?~!#]")
"""What a shell would read as more than words."""
_JUDGES_LIST = ("path", "pattern")


def matches(pattern: str, tool: str) -> bool:
    """True when a pattern of tool names covers a tool: the same name, or a prefix before a final ``*``."""
    return tool.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == tool


def broken(rules: tuple[ArgumentRule, ...], tool: str, arguments: JsonObject) -> str | None:
    """Why a call is against the rules, or None. The text names the argument and the rule, never the value."""
    for rule in rules:
        if matches(rule.tool, tool) and (why := _broken(rule, arguments)) is not None:
            return f"The argument {rule.argument!r} of {tool} {why}"
    return None


def _broken(rule: ArgumentRule, arguments: JsonObject) -> str | None:
    value = arguments.get(rule.argument)
    if value is None:
        return None if rule.optional else "is missing, and the open step has a rule for it."
    values = value if isinstance(value, list) and rule.kind in _JUDGES_LIST else [value]
    texts = [item for item in values if isinstance(item, str) and len(item) <= MAX_TEXT]
    if not values or len(texts) < len(values):
        return f"must be text of at most {MAX_TEXT} characters here."
    return next(filter(None, (_JUDGES[rule.kind](rule, item) for item in texts)), None)


# -- paths


def _path(rule: ArgumentRule, text: str) -> str | None:
    parts = _parts(text)
    if parts is None:
        return "must be a relative path without '..', '~', backslashes or control characters here."
    if rule.allowed is not None and not any(_glob(item.split("/"), parts) for item in rule.allowed):
        return f"must match one of {', '.join(rule.allowed)} here."
    folded = [_folded(part) for part in parts]
    for item in rule.forbidden:
        if _forbidden(_folded(item).split("/"), folded):
            return f"must not match {item} here."
    return None


def _parts(text: str) -> list[str] | None:
    """The names on the way, or None for a path that may lead elsewhere than it reads."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    odd = text.startswith(("/", "~")) or "\\" in text or ".." in parts or ":" in parts[0] if parts else True
    return None if odd or any(unicodedata.category(letter)[0] == "C" for letter in text) else parts


def _folded(text: str) -> str:
    """One spelling for what some file systems take as one name."""
    return unicodedata.normalize("NFKC", text).casefold()


def _forbidden(pattern: list[str], parts: list[str]) -> bool:
    """A pattern that forbids a folder's contents forbids the folder; one without a slash, the name wherever it stands."""
    if len(pattern) == 1 and pattern != ["**"]:
        return any(_name(pattern[0], part) for part in parts)
    while len(pattern) > 1 and pattern[-1] in ("*", "**"):
        if _glob(pattern, parts):
            return True
        pattern = pattern[:-1]
    return any(_glob(pattern, parts[:end]) for end in range(1, len(parts) + 1))


def _glob(pattern: list[str], parts: list[str]) -> bool:
    """Whole-path match, name by name; ``**`` stands for any number of names."""
    reached = {0}
    for item in pattern:
        if item == "**":
            reached = set(range(min(reached), len(parts) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(parts) and _name(item, parts[at])}
    return len(parts) in reached


def _name(pattern: str, name: str) -> bool:
    """One name against ``*`` and ``?``: a star is tried longer only when what follows it fails, and only the last one."""
    at = place = 0
    star, mark = -1, 0
    while place < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[place]):
            at, place = at + 1, place + 1
        elif star >= 0:
            mark += 1
            at, place = star + 1, mark
        else:
            return False
    return all(letter == "*" for letter in pattern[at:])


# -- commands


def _command(rule: ArgumentRule, text: str) -> str | None:
    if rule.allowed is not None:
        words = _words(text)
        if words is None:
            return "must be one plain command here: no quotes left open, and nothing that a shell would interpret."
        if not any(words[: len(item)] == item for item in map(str.split, rule.allowed) if item):
            return f"must begin with one of {', '.join(rule.allowed)} here."
    plain = " ".join(_folded(re.sub(r"[\"'\\]", "", text)).split())
    for item in rule.forbidden:
        if re.search(rf"(?<![\w-]){re.escape(' '.join(_folded(item).split()))}(?![\w-])", plain):
            return f"must not hold the command {item!r} here."
    return None


def _words(text: str) -> list[str] | None:
    if _SHELL.search(text):
        return None
    try:
        return shlex.split(text)
    except ValueError:
        return None


# -- patterns


_MATCHES = "params.text.matches(params.pattern)"


def _pattern(rule: ArgumentRule, text: str) -> str | None:
    try:
        if rule.allowed is not None and not any(_whole(item, text) for item in rule.allowed):
            return "does not match what the open step allows."
        if any(_whole(item, text) for item in rule.forbidden):
            return "matches what the open step forbids."
    except CharterError:
        return "cannot be judged by the open step's patterns."
    return None


def _whole(pattern: str, text: str) -> bool:
    scope: dict[str, Any] = {"params": {"text": text, "pattern": rf"\A(?:{pattern})\z"}}
    return expressions.condition(_MATCHES, scope)


_JUDGES = {"path": _path, "command": _command, "pattern": _pattern}
