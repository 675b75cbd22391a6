"""Lines of JSON-RPC from a stream of bytes, each held up to a limit; of a longer one, whose answer it was.

A line costs time and memory in proportion to its length and never more than the limit, whoever writes it. An answer
over the limit is thrown away as it arrives; what stands at its two ends tells which call it was for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import orjson

KEPT: Final = 1024
_ID = rb'(-?[0-9]{1,15}|"[^"\\]{0,64}")'
_VERSION = rb'(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?'
# Python's SDK writes jsonrpc, id, result; the TypeScript one result, jsonrpc, id.
_ID_FIRST = re.compile(
    rb"\s*\{\s*" + _VERSION + rb'"id"\s*:\s*' + _ID + rb"\s*,\s*" + _VERSION + rb'"(?:result|error)"\s*:'
)
_ANSWER = re.compile(rb"\s*\{\s*" + _VERSION + rb'"(?:result|error)"\s*:')
# Exact in valid JSON: a comma before the quote means that the name is whole, the last brace that it is the message's own.
_ID_LAST = re.compile(rb',\s*"id"\s*:\s*' + _ID + rb'\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*\Z')


class Endless(Exception):
    """A line went on so far beyond the limit that nothing but the end of the connection ends it."""


@dataclass(frozen=True, slots=True)
class Overlong:
    """What is kept of a line over the limit: its first bytes and, once it has ended, its last ones."""

    head: bytes
    tail: bytes | None = None


class Lines:
    """Feed it bytes as they come. Never holds more than ``limit`` bytes and one chunk."""

    def __init__(self, limit: int, *, patience: int = 16) -> None:
        """``patience``: a line longer than so many times the limit is ``Endless``."""
        self._limit, self._most = limit, limit * patience
        self._parts: list[bytes] = []
        self._size = 0
        self._head: bytes | None = None
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[bytes | Overlong]:
        """The lines that ended; of one that passes the limit an ``Overlong`` at once and another one at its end.

        Raises ``Endless``.
        """
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            yield from self._add(data[start:end])
            yield self._ended()
            start = end + 1
        if start < len(data):
            yield from self._add(data[start:])

    def _add(self, part: bytes) -> Iterator[Overlong]:
        self._size += len(part)
        if self._size > self._most:
            raise Endless
        if self._head is not None:
            self._tail = (self._tail + part)[-KEPT:]
            return
        self._parts.append(part)
        if self._size > self._limit:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._head, self._tail = whole[:KEPT], whole[-KEPT:]
            yield Overlong(self._head)

    def _ended(self) -> bytes | Overlong:
        line = b"".join(self._parts) if self._head is None else Overlong(self._head, self._tail)
        self._parts.clear()
        self._size, self._head, self._tail = 0, None, b""
        return line


def answered(head: bytes, tail: bytes | None) -> str | int | None:
    """The id of the request that a message answers which is not read as a whole; None if it cannot be told or is no answer."""
    found = _ID_FIRST.match(head)
    if found is None and tail is not None and _ANSWER.match(head):
        found = _ID_LAST.search(tail)
    if found is None:
        return None
    value: str | int = orjson.loads(found[1])
    return value
