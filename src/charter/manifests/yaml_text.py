"""YAML as a way to write JSON: YAML 1.2's few plain values, no aliases, no duplicate keys, and the line of each value.

``no``, ``on``, ``12:30`` and ``2026-01-01`` are strings here, as everywhere but in YAML 1.1. Aliases are refused because
a few lines of them expand to gigabytes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from charter.errors import Misconfigured
from charter.model.base import Json

MAX_CHARACTERS = 8 * 1024 * 1024
MAX_DEPTH = 64
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the C loader where PyYAML was built with it
    """Composes nodes only; values are made from them here."""


_Loader.yaml_implicit_resolvers = {}
_KINDS = (
    ("null", r"^(?:null|Null|NULL|~|)$", ["n", "N", "~", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789")),
)
for _tag, _pattern, _first in _KINDS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def reads_as_text(text: str) -> bool:
    """Whether this scalar, unquoted, is read as the text that it is: ``0E0`` would be a number."""
    return not any(re.match(pattern, text) for _, pattern, _ in _KINDS)


@dataclass(slots=True)
class Document:
    """What a text says, and on which line (from 1) each value stands, by JSON pointer."""

    file: str
    value: Json
    lines: dict[str, int] = field(default_factory=dict)

    def line(self, pointer: str) -> int:
        """The line of the value at ``pointer``, or of the nearest one around it."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 1)

    def error(self, pointer: str, problem: str, mend: str, *, code: str) -> Misconfigured:
        """An error that names file, line and what to do."""
        line = self.line(pointer)
        where = f" ({pointer})" if pointer else ""
        return Misconfigured(
            f"{self.file}:{line}{where}: {problem}",
            code=code,
            next_step=mend,
            detail={"file": self.file, "line": line, "pointer": pointer},
        )


def load(text: str, file: str, *, code: str = "bad_yaml") -> Document:
    """Read one YAML (or JSON) document. Raises ``Misconfigured`` with this code, naming file, line and mend."""
    document = Document(file, None)
    if len(text) > MAX_CHARACTERS:
        raise document.error("", f"longer than {MAX_CHARACTERS:,} characters", "Split the file.", code=code)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        document.lines[""] = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "the YAML cannot be read"
        raise document.error("", str(problem), "Correct the YAML at this line.", code=code) from None
    finally:
        loader.dispose()
    if node is not None:
        document.value = _Maker(document, code).make(node, "", 0)
    return document


class _Maker:
    def __init__(self, document: Document, code: str) -> None:
        self.document, self.code, self.seen = document, code, set[int]()

    def make(self, node: yaml.Node, pointer: str, depth: int) -> Json:
        if id(node) in self.seen:  # an alias gives the node that its anchor made
            raise self._error(pointer, "aliases (*name) are not allowed", "Write the value out.")
        self.document.lines[pointer] = node.start_mark.line + 1
        self.seen.add(id(node))
        if depth > MAX_DEPTH:
            raise self._error(pointer, f"nested deeper than {MAX_DEPTH} levels", "Flatten the value.")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, pointer)
        if isinstance(node, yaml.SequenceNode):
            return [self.make(item, f"{pointer}/{index}", depth + 1) for index, item in enumerate(node.value)]
        return self._mapping(node, pointer, depth)

    def _mapping(self, node: yaml.Node, pointer: str, depth: int) -> Json:
        out: dict[str, Json] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise self._error(pointer, "a key must be plain text", "Use text as keys.")
            inner = f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in out:
                self.document.lines[inner] = key_node.start_mark.line + 1
                raise self._error(inner, f"{key!r} is given twice", "Remove one of the two.")
            out[key] = self.make(value_node, inner, depth + 1)
        return out

    def _scalar(self, node: yaml.ScalarNode, pointer: str) -> Json:
        kind, text = node.tag.rpartition(":")[2], node.value
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text) if len(text) < 400 else text
        if kind == "float":
            number = float(text)
            return number if math.isfinite(number) else text
        if kind == "str":
            return text
        raise self._error(
            pointer, f"the tag !!{kind} is not known", "Use text, numbers, true, false, null, lists and maps."
        )

    def _error(self, pointer: str, problem: str, mend: str) -> Misconfigured:
        return self.document.error(pointer, problem, mend, code=self.code)


# -- writing


class _Dumper(yaml.SafeDumper):
    """Strings that look like another type are quoted; nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not any(line != line.rstrip() for line in text.split("\n")) else None
    if style is None and not reads_as_text(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(value: Json) -> str:
    """The value as a block of lines that :func:`load` reads as the same value."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=100))
