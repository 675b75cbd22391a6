"""JSON from outside, read so that no two readers can take one text for two things.

Refused: a name given twice in one object (of which some readers take the first and some the last, RFC 8259 section 4),
NaN and the infinities, numbers that become infinite, half a surrogate pair, and bytes that are not UTF-8 (RFC 7493).
A kept decoder of the standard library with a hook: measured at 10 µs more, all told, for a call of 1 kB.
"""

from __future__ import annotations

import json
import math
from typing import Any

from charter.errors import InvalidInput
from charter.model.canonical import TOO_LONG_INTEGER, check_depth, not_canonical, too_deep
from charter.model.plain_text import one_line

MAX_NESTING = 128
"""What may come through a door, envelope and all; what is then bound by a digest may nest half as deep."""
_EXACT_DIGITS = 17  # of an integer that may be exact, with its sign


class _Refused(ValueError):
    """What a hook found; the decoder lets it pass."""

    def __init__(self, error: InvalidInput) -> None:
        super().__init__(error.message)
        self.error = error


def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """``object_pairs_hook``: raises a ``ValueError`` whose text names what is given twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Refused(_twice(next(name for name in names if names.count(name) > 1)))
    return table


def _twice(name: str) -> InvalidInput:
    said = one_line(name)[:60]
    return InvalidInput(
        f"{said!r} is given twice in one JSON object.",
        code="json_duplicate_key",
        next_step="Give each name once: readers do not agree on which of the two counts.",
        detail={"name": said},
    )


def not_json(why: str) -> InvalidInput:
    """A text that is no JSON."""
    return InvalidInput(
        f"This is not JSON: {why}.", code="json_invalid", next_step="Send JSON as RFC 8259 has it, in UTF-8."
    )


def _no_constant(name: str) -> Any:
    raise _Refused(not_json(f"{name} is no number of JSON's"))


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused(not_json("a number is larger than any that is read as a number (IEEE 754)"))
    return number


def _short(digits: str) -> int:
    if len(digits) > _EXACT_DIGITS or abs(number := int(digits)) >= 2**53:
        raise _Refused(not_canonical(TOO_LONG_INTEGER))
    return number


_ANY_INTEGER = json.JSONDecoder(object_pairs_hook=no_twins, parse_constant=_no_constant, parse_float=_finite)
_SHORT_INTEGERS = json.JSONDecoder(
    object_pairs_hook=no_twins, parse_constant=_no_constant, parse_float=_finite, parse_int=_short
)


def read_json(text: str | bytes) -> Any:
    """The value, each integer with all its digits.

    Raises ``InvalidInput``: ``json_duplicate_key``, ``json_invalid``, ``json_too_deep`` beyond ``MAX_NESTING``.
    """
    return _read(text, _ANY_INTEGER)


def exact_json(text: str | bytes) -> Any:
    """As ``read_json``, of values that get a digest: integers beyond 2^53 - 1 are refused too (``json_not_canonical``)."""
    return _read(text, _SHORT_INTEGERS)


def _read(given: str | bytes, decoder: json.JSONDecoder) -> Any:
    try:
        text = given.decode() if isinstance(given, bytes) else given.encode().decode()
        value = decoder.decode(text)
        if "\\u" in text and ("\\ud" in text or "\\uD" in text):  # which most emoji are, escaped, in whole pairs
            json.dumps(value, ensure_ascii=False).encode()
    except _Refused as refused:
        raise refused.error from None
    except RecursionError:
        raise too_deep(MAX_NESTING) from None
    except UnicodeDecodeError as error:
        raise not_json(f"byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise not_json("a text holds half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        raise not_json(f"it breaks off or goes wrong at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # Python's own limit for the digits of an integer
        raise not_json("an integer has thousands of digits") from None
    if text.count("{") + text.count("[") > MAX_NESTING:  # only then can it be nested deeper
        check_depth(value, MAX_NESTING)
    return value
