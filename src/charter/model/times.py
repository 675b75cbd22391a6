"""Times as text: RFC 3339, UTC, milliseconds, so that comparing the text compares the times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

LATEST_MS = 253_402_300_799_999
"""The last moment that a text can name: the end of the year 9999."""


def rfc3339(unix_ms: int) -> str:
    """``2026-11-21T07:49:15.042Z`` of milliseconds since 1970."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{_to_the_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=8)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def unix_ms_of(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 text with an offset; ``ValueError`` otherwise."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone.")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def later(text: str, seconds: int) -> str:
    """``text`` plus so many seconds."""
    return rfc3339(unix_ms_of(text) + seconds * 1000)


def later_ms(text: str, milliseconds: int) -> str:
    """``text`` plus so many milliseconds."""
    return rfc3339(unix_ms_of(text) + milliseconds)
