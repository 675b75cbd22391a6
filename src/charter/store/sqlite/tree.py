"""Nodes of the Merkle tree from what is stored: leaf hashes beside the events, and roots at every eighth level."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from charter.audit.merkle import levels_of
from charter.errors import IntegrityError, InvalidInput
from charter.store.sqlite.book import BAND, SEQ_BITS

_LEAVES = "SELECT leaf_hash FROM events WHERE pos >= ? AND pos < ? ORDER BY pos"
_NODES = "SELECT hash FROM nodes WHERE tenant = ? AND level = ? AND idx >= ? AND idx < ? ORDER BY idx"


def leaf_hashes(connection: sqlite3.Connection, tenant: str, start: int, end: int) -> list[bytes]:
    """The leaf hashes of ``start <= seq < end``, fewer when the log ends before."""
    row = connection.execute("SELECT no FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
    if row is None or start >= end:
        return []
    base = row[0] << SEQ_BITS
    return [hash_ for (hash_,) in connection.execute(_LEAVES, (base + start, base + end))]


def tree_nodes(connection: sqlite3.Connection, tenant: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
    """The hashes of complete subtrees; at most 2^7 small reads each."""
    row = connection.execute("SELECT no, size FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
    no, size = row or (0, 0)
    return [_node(connection, no, size, level, index) for level, index in wanted]


def _node(connection: sqlite3.Connection, no: int, size: int, level: int, index: int) -> bytes:
    if level < 0 or index < 0 or (index + 1) << level > size:
        raise InvalidInput(f"The log of {size} leaves has no complete node ({level}, {index}).", code="no_such_node")
    above = level % BAND
    first, end = index << above, (index + 1) << above
    if level < BAND:
        rows = connection.execute(_LEAVES, ((no << SEQ_BITS) + first, (no << SEQ_BITS) + end)).fetchall()
    else:
        rows = connection.execute(_NODES, (no, level - above, first, end)).fetchall()
    if len(rows) != end - first:
        raise IntegrityError(f"Below node ({level}, {index}) something is missing.", code="log_gap")
    return levels_of([hash_ for (hash_,) in rows])[-1][0]
