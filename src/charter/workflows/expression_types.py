"""CEL's own type checker, asked about an expression in which some variables have types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from cel_expr_python import cel

from charter.model.misfit import Misfit
from charter.workflows.expressions import VARIABLES

_TYPES: Final[dict[str, Any]] = {
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "bool": cel.Type.BOOL,
    "map": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "list()": cel.Type.List(cel.Type.DYN),
    "list(int)": cel.Type.List(cel.Type.INT),
    "list(string)": cel.Type.List(cel.Type.STRING),
    "list(bool)": cel.Type.List(cel.Type.BOOL),
}
_RESULTS: Final = {"BOOL": "bool", "INT": "int", "DOUBLE": "double", "STRING": "string", "NULL": "null"}
_MISFIT: Final = re.compile(
    r"ERROR: <input>:(\d+):(\d+): found no matching overload for '([^']+)' applied to '\((.*)\)'"
)
_COMPARING: Final = frozenset(("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"))
_EQUALITY: Final = frozenset(("_==_", "_!=_", "@in"))
_NUMBERS: Final = frozenset(("int", "uint", "double"))


def check(source: str, types: Mapping[str, str]) -> tuple[str, tuple[Misfit, ...]]:
    """The type of the result (``""`` for any), and each operator that is not for what it is given.

    What evaluation would take all the same is not told: numbers of two kinds may be compared, anything with null.
    """
    try:
        compiled = _environment(tuple(sorted(types.items()))).compile(source)
    except Exception as error:
        found = (_misfit(*match.groups()) for match in _MISFIT.finditer(str(error)))
        return "", tuple(item for item in found if item is not None)
    kind = str(compiled.return_type())
    return _RESULTS.get(kind, kind.partition("<")[0].lower() if kind.startswith(("LIST", "MAP")) else ""), ()


@lru_cache(maxsize=64)
def _environment(types: tuple[tuple[str, str], ...]) -> Any:
    known = {name: _TYPES[kind] for name, kind in types if kind in _TYPES}
    loose = {name: cel.Type.DYN for name, kind in types if kind not in _TYPES}
    return cel.NewEnv(variables={**dict.fromkeys(VARIABLES, cel.Type.DYN), **loose, **known})


def _misfit(line: str, column: str, operator: str, listed: str) -> Misfit | None:
    types = tuple(_split(listed))
    if operator == "_?_:_" and types[:1] in (("bool",), ("dyn",)):
        return None  # the branches may differ
    if operator in _COMPARING and _NUMBERS.issuperset(types):
        return None
    if operator in _EQUALITY and "null_type" in types:
        return None
    if operator == "@in" and re.search(r"\((int|uint|double)\)", types[-1]) and types[0] in _NUMBERS:
        return None
    if operator == "_+_" and all(item.startswith("list(") for item in types):
        return None
    if operator == "_==_" and all(item.startswith(("list(", "map(")) for item in types):
        return None
    harmless = operator in _EQUALITY and not (operator == "@in" and not types[-1].startswith(("list(", "map(")))
    return Misfit(int(line) * 10_000 + int(column), operator, types, harmless)


def _split(listed: str) -> list[str]:
    """The types of a list of arguments; those in brackets belong together."""
    out, depth, at = [], 0, 0
    for index, letter in enumerate(listed):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            out.append(listed[at:index].strip())
            at = index + 1
    return [*out, listed[at:].strip()]
