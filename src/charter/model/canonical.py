"""Canonical JSON (RFC 8785) and the digests made of it.

It stands on the ground floor because every room binds things by hash: calls, templates, tool definitions,
policy sets and ledger leaves. orjson is used where it gives the same bytes (proved by a property test); it
differs from RFC 8785 for floats, for keys outside ASCII, and for integers beyond 2^53, so those take the
reference implementation, which refuses what cannot be canonical.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import rfc8785

from charter.errors import InvalidInput

MAX_DEPTH = 64
_SAFE_INTEGER = 2**53 - 1


def _is_plain(value: Any, depth: int = 0) -> bool:
    """True when orjson with sorted keys gives the RFC 8785 bytes of ``value``."""
    if depth > MAX_DEPTH:
        raise InvalidInput(
            f"JSON is nested deeper than {MAX_DEPTH} levels.", code="json_too_deep", next_step="Flatten the value."
        )
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -_SAFE_INTEGER <= value <= _SAFE_INTEGER
    if kind is dict:
        plain = True
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidInput("JSON object keys must be strings.", code="json_bad_key")
            plain = _is_plain(item, depth + 1) and plain and key.isascii()
        return plain
    if kind is list or kind is tuple:
        plain = True
        for item in value:
            plain = _is_plain(item, depth + 1) and plain
        return plain
    return False


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value.

    Raises ``InvalidInput`` (``json_not_canonical``) for NaN, infinities, integers beyond 2^53, lone surrogates and
    anything that is not JSON, and ``json_too_deep`` beyond 64 levels.
    """
    try:
        if _is_plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, orjson.JSONEncodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(
            f"The value has no canonical JSON form (RFC 8785): {error}",
            code="json_not_canonical",
            next_step="Send large integers and exact decimals as strings, and valid Unicode text.",
        ) from None


def sha256_hex(data: bytes) -> str:
    """Lower-case hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """``sha256:`` and the hexadecimal SHA-256 of the canonical bytes of ``value``."""
    return "sha256:" + sha256_hex(canonical(value))
