"""Does a row say what its leaf says? The leaf was hashed; the row beside it was not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import orjson

from charter.audit.envelope import Envelope, has_members, parse_leaf
from charter.audit.findings import Finding
from charter.errors import CharterError
from charter.model.canonical import canonical

_TRACE = b',"trace_id":"'
_TRACE_BYTES = len(_TRACE) + 32 + 1
_QUOTE = ord('"')


class LeafRow(Protocol):
    """A stored event; ``charter.store.port.StoredEvent`` is one."""

    @property
    def tenant(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def seq(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def time(self) -> str: ...
    @property
    def leaf(self) -> bytes: ...


_NAMES = ("seq", "tenant", "stream", "version", "id", "type", "time")


def disagreeing(rows: Sequence[LeafRow]) -> frozenset[int]:
    """Indices of the rows whose leaf does not end as the row makes it. They may only be escaped: look closer.

    The members after ``data`` stand at the end of a canonical leaf, so comparing bytes is enough, and is several
    times faster than reading JSON. A leaf whose texts need escapes, or with an odd trace id, takes the slow road.
    """
    begins = _encoded(
        [f',"id":"{r.id}","seq":{r.seq},"stream":"{r.stream}","tenant":"{r.tenant}","time":"{r.time}"' for r in rows]
    )
    ends = _encoded([f',"type":"{r.type}","v":1,"version":{r.version}}}' for r in rows])
    if begins is None or ends is None:
        return frozenset(range(len(rows)))
    odd = []
    for index, (row, begin, end) in enumerate(zip(rows, begins, ends, strict=True)):
        leaf = row.leaf
        cut = len(leaf) - len(end)
        at = cut - _TRACE_BYTES
        if at < len(begin) or not leaf.endswith(end):
            right = False
        elif leaf.startswith(_TRACE, at):
            hexadecimal = leaf[cut - 33 : cut - 1].isalnum() and leaf[cut - 1] == _QUOTE
            right = hexadecimal and leaf.startswith(begin, at - len(begin))
        else:
            right = leaf.startswith(begin, cut - len(begin))
        if not right:
            odd.append(index)
    return frozenset(odd)


def _encoded(texts: list[str]) -> list[bytes] | None:
    """All of them in one go; None when one has an escape or a newline, so that nothing can be told from it."""
    joined = "\n".join(texts)
    if "\\" in joined:
        return None
    parts = joined.encode("utf-8", "replace").split(b"\n")
    return parts if len(parts) == len(texts) else None


Holder = Callable[[int], LeafRow | None]
"""Which row has this earlier sequence number, for those that are still at hand."""


def disagreement(row: LeafRow, holder: Holder | None) -> Finding | None:
    """The slow road: what is wrong with this row, if anything. No ``holder``: only this row can be at fault."""
    try:
        envelope = parse_leaf(row.leaf)
    except CharterError as error:
        return Finding("leaf_bytes", error.message, row.seq, row.id)
    wrong = [name for name in _NAMES if getattr(envelope, name) != getattr(row, name)]
    if not wrong:
        return None
    said = ", ".join(f"{name} {getattr(envelope, name)!r} not {getattr(row, name)!r}" for name in wrong)
    return _misplaced(row, envelope, holder, f"The event's bytes say {said}.")


def _misplaced(row: LeafRow, envelope: Envelope, holder: Holder | None, text: str) -> Finding:
    """Where the damage begins: when two different events claim a place, then at that place; else here."""
    other = holder(envelope.seq) if holder and envelope.seq < row.seq else None
    if other is None or other.leaf == row.leaf:
        return Finding("row_mismatch", text, row.seq, row.id)
    return Finding("row_mismatch", f"{text} Event {other.id} stands in its place.", other.seq, other.id)


def not_canonical(row: LeafRow) -> Finding | None:
    """The deep check: are the bytes the canonical JSON of an envelope? (RFC 8785)"""
    try:
        value = orjson.loads(row.leaf)
        if canonical(value) == row.leaf and has_members(value):
            return None
    except (ValueError, CharterError):
        pass  # the slow road tells what it is
    try:
        parse_leaf(row.leaf)
    except CharterError as error:
        return Finding("leaf_bytes", error.message, row.seq, row.id)
    return None
