"""Canonical JSON (RFC 8785) and the digests made of it.

It stands on the ground floor because every room binds things by hash: calls, templates, tool definitions,
policy sets and ledger leaves. orjson is used where it gives the same bytes (proved by a property test); it
differs from RFC 8785 for floats, for keys beyond the basic plane, for integers beyond 2^53 and for Python
types that are not JSON, so those take the reference implementation, which refuses what cannot be canonical.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import rfc8785

from charter.errors import InvalidInput

MAX_DEPTH = 64
TOO_LONG_INTEGER = "an integer is beyond 2^53 - 1"
_STRICT = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_SCALARS = frozenset((str, int, bool, type(None)))
_ARRAYS = frozenset((list, tuple))
# Code points beyond the basic plane sort differently as UTF-8 (orjson) and as UTF-16 (RFC 8785).
_BEYOND_BMP = re.compile(rb"[\xf0-\xf4]")


def too_deep(most: int) -> InvalidInput:
    """A value with more than ``most`` objects or arrays inside each other."""
    return InvalidInput(
        f"JSON is nested deeper than {most} levels.",
        code="json_too_deep",
        next_step="Flatten the value.",
    )


def _is_plain(value: Any) -> bool:
    """True when ``value`` is made of exact JSON types and has no floats.

    Call it after orjson has accepted the value and its depth is known: its keys are strings then.
    """
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind not in _ARRAYS:
        return kind in _SCALARS
    scalars = _SCALARS
    for item in value:  # noqa: SIM110 - a loop is twice as fast as all() here, and each audit event passes it
        # Scalars are most of any event and are passed over without a call.
        if type(item) not in scalars and not _is_plain(item):
            return False
    return True


def check_depth(value: Any, most: int, depth: int = 1) -> None:
    """Raises ``too_deep``."""
    if not isinstance(value, (dict, list, tuple)):
        return
    if depth > most:
        raise too_deep(most)
    for item in value.values() if isinstance(value, dict) else value:
        check_depth(item, most, depth + 1)


def _by_reference(value: Any, most: int) -> bytes:
    check_depth(value, most)
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        # The value itself stays out of the text: it may be a secret.
        reason = type(error).__name__ if isinstance(error, UnicodeEncodeError) else _reason(error)
        raise not_canonical(reason) from None


def not_canonical(reason: str) -> InvalidInput:
    """A value that has no canonical form."""
    return InvalidInput(
        f"The value has no canonical JSON form (RFC 8785): {reason}.",
        code="json_not_canonical",
        next_step="Send large integers and exact decimals as strings, and valid Unicode text.",
    )


def _reason(error: rfc8785.CanonicalizationError) -> str:
    if isinstance(error, rfc8785.IntegerDomainError):
        return TOO_LONG_INTEGER
    if isinstance(error, rfc8785.FloatDomainError):
        return "a number is not finite"
    return str(error)


def canonical(value: Any, *, max_depth: int = MAX_DEPTH) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Raises ``InvalidInput``: ``json_not_canonical`` for NaN, infinities, integers beyond 2^53 - 1, lone
    surrogates and anything that is not JSON; ``json_too_deep`` beyond ``max_depth`` objects or arrays inside each other.
    """
    try:
        out = orjson.dumps(value, option=_STRICT)
    except orjson.JSONEncodeError:
        return _by_reference(value, max_depth)
    if out.count(b"{") + out.count(b"[") > max_depth:  # only then can it be nested deeper
        check_depth(value, max_depth)
    if (out.isascii() or not _BEYOND_BMP.search(out)) and _is_plain(value):
        return out
    return _by_reference(value, max_depth)


def sha256_hex(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the canonical bytes of ``value``."""
    return "sha256:" + sha256_hex(canonical(value))
