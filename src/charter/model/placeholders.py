"""``{{ CEL }}`` in the texts of a template: found here, so that what is validated is what is filled in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_VALUE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


def whole(text: str) -> str | None:
    """The source when ``text`` is one ``{{ }}`` and nothing else."""
    found = _VALUE.fullmatch(text.strip())
    return found.group(1).strip() if found and "{{" not in found.group(1) else None


def fill(text: str, value_of: Callable[[str], str]) -> str:
    """``text`` with each ``{{ }}`` replaced in one pass: what is filled in is not looked at again."""
    return _VALUE.sub(lambda found: value_of(found.group(1).strip()), text)


def parts(text: str) -> list[tuple[bool, str]]:
    """``text`` taken apart: (True, source) for each ``{{ }}``, (False, text) for what is between."""
    found = _VALUE.split(text)  # text and sources take turns
    return [
        (bool(index % 2), part.strip() if index % 2 else part) for index, part in enumerate(found) if index % 2 or part
    ]


def expressions_in(value: Any) -> list[str]:
    """Every source in a JSON value, in order."""
    if isinstance(value, dict):
        return [source for item in value.values() for source in expressions_in(item)]
    if isinstance(value, list | tuple):
        return [source for item in value for source in expressions_in(item)]
    if not isinstance(value, str):
        return []
    source = whole(value)
    return [found.strip() for found in _VALUE.findall(value)] if source is None else [source]


def unclosed(value: Any) -> bool:
    """True when a text of a JSON value has a ``{{`` that nothing closes: it stays text, and is hardly meant to."""
    if isinstance(value, dict):
        return any(unclosed(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(unclosed(item) for item in value)
    return isinstance(value, str) and "{{" in _VALUE.sub("", value)
