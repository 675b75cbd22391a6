"""Conditions and values in CEL (github.com/google/cel-spec), evaluated by Google's C++ implementation.

Safe by construction: no I/O, terminates, capped in source, depth and data. An error is never taken as false:
:func:`condition` and :func:`render` raise ``ExpressionError`` with the expression and the type of what came out.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar

from cel_expr_python import cel

from charter.errors import InvalidInput
from charter.model import placeholders
from charter.model.canonical import MAX_DEPTH

MAX_SOURCE = 500
VARIABLES = (
    *("trigger", "steps", "workflow", "signal", "schedule", "response", "callback", "result"),
    *("artifacts", "evidence", "params"),
)
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEPS = re.compile(r"\bsteps\b")
# steps.name, steps["name"], steps['name']; not a call such as steps.all(…), which reads them all.
_STEP = re.compile(r"""\bsteps(?:\.([A-Za-z_][A-Za-z0-9_]*)\b(?!\s*\()|\[\s*(?:"([^"]*)"|'([^']*)')\s*\])""")


class ExpressionError(InvalidInput):
    """An expression does not compile, or did not give a value of the type that its place needs."""

    code: ClassVar[str] = "expression_error"


@lru_cache(maxsize=1)
def _environment() -> Any:
    return cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN))


@lru_cache(maxsize=4096)
def compiled(source: str) -> Any:
    """Compile once. Raises ``ExpressionError`` naming the expression; used when a template is published."""
    if len(source) > MAX_SOURCE:
        raise ExpressionError(
            f"The expression is longer than {MAX_SOURCE} characters: {source[:60]!r}…",
            next_step="Split it over several steps.",
        )
    try:
        return _environment().compile(source)
    except Exception as error:
        raise ExpressionError(
            f"The expression {source!r} does not compile: {str(error).splitlines()[0][:200]}",
            next_step=f"Use CEL over {', '.join(VARIABLES)}.",
        ) from None


def problem(source: str) -> str | None:
    """Why ``source`` does not compile, or None: for the validator of templates."""
    try:
        compiled(source)
    except ExpressionError as error:
        return error.message
    return None


def _checked_depth(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ExpressionError(f"The data is nested deeper than {MAX_DEPTH} levels.")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        _checked_depth(item, depth + 1)


def evaluate(source: str, scope: dict[str, Any]) -> Any:
    """The plain value of an expression over ``scope`` (its keys are among ``VARIABLES``)."""
    program = compiled(source)
    bound = _bound(source, scope)
    _checked_depth(bound)
    try:
        result = program.eval(data=bound)
    except Exception as error:
        raise ExpressionError(f"The expression {source!r} was stopped: {str(error)[:200]}") from None
    if result.type() == cel.Type.ERROR:
        raise ExpressionError(
            f"The expression {source!r} has no value: {str(result.value())[:200]}",
            next_step="Check that the fields it names exist and have the types it needs; use has(x.y) for optional ones.",
        )
    return _json(source, result.plain_value())


def _bound(source: str, scope: dict[str, Any]) -> dict[str, Any]:
    """Only what the expression names, since binding costs by the size of the data; all steps where it is not plain."""
    words = set(_NAMES.findall(source))
    bound = {name: scope.get(name) for name in VARIABLES if name in words}
    named = [next(filter(None, found), "") for found in _STEP.findall(source)]
    steps = bound.get("steps")
    if isinstance(steps, dict) and len(named) == len(_STEPS.findall(source)):
        bound["steps"] = {key: item for key, item in steps.items() if key in named}
    return bound


def _json(source: str, value: Any) -> Any:
    """The value as JSON, maps in the order of their keys: CEL's own order differs from one process to the next."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _json(source, value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_json(source, item) for item in value]
    if value is None or isinstance(value, bool | str | int) or (isinstance(value, float) and isfinite(value)):
        return value
    raise ExpressionError(
        f"The expression {source!r} gave a {type(value).__name__}, which is not JSON.",
        next_step="Turn it into text with string(…), or choose a field of it.",
    )


def condition(source: str, scope: dict[str, Any]) -> bool:
    """True or false; anything else, and any error, raises ``ExpressionError``."""
    value = evaluate(source, scope)
    if value is True or value is False:
        return value
    raise ExpressionError(f"The condition {source!r} gave a {type(value).__name__}, not true or false.")


def render(value: Any, scope: dict[str, Any]) -> Any:
    """Fill ``{{ CEL }}`` in strings of a JSON value, in one pass: what comes in is not expanded again.

    A string that is one ``{{ }}`` keeps the value's JSON type; elsewhere values become text.
    """
    if isinstance(value, dict):
        return {key: render(item, scope) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render(item, scope) for item in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    source = placeholders.whole(value)
    if source is not None:
        return evaluate(source, scope)
    return placeholders.fill(value, lambda source: as_text(evaluate(source, scope)))


def as_text(value: Any) -> str:
    """A value within text: strings as they are, null as nothing, maps and lists as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return value if isinstance(value, str) else str(value)
