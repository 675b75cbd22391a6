"""Reading events: a stream backwards along ``prev``, and the tenant's log forwards.

A stream is walked from its last event, or from the milestone (every 64th version is indexed) after the last wanted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from charter.errors import IntegrityError
from charter.store.port import StoredEvent
from charter.store.sqlite.book import SEQ_BITS

Row = tuple[Any, ...]
Few = Callable[[str, Sequence[Any]], list[Row]]
MILESTONE = 64

_EVENT = f"e.pos & {(1 << SEQ_BITS) - 1}, e.version, e.id, e.type, e.time, e.leaf"
_HEAD = "SELECT no, version, last FROM streams WHERE tenant = ? AND stream = ?"
_MILESTONE = f"SELECT pos FROM events WHERE stream = ? AND version = ? AND version % {MILESTONE} = 0"  # noqa: S608
WALK = f"""
WITH RECURSIVE chain (pos, prev, version) AS (
    SELECT pos, prev, version FROM events WHERE pos = ?1 AND stream = ?2
    UNION ALL
    SELECT e.pos, e.prev, e.version
    FROM chain JOIN events AS e ON e.pos = chain.prev AND e.stream = ?2
    WHERE chain.version > ?3
)
SELECT {_EVENT} FROM chain JOIN events AS e ON e.pos = chain.pos WHERE chain.version <= ?4
"""  # noqa: S608 - numbers of our own
_LOG = f"SELECT s.stream, {_EVENT} FROM events AS e JOIN streams AS s ON s.no = e.stream WHERE e.pos >= ? AND e.pos < ?"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Walk:
    """Versions ``first`` to ``last`` of a stream, both included, to be read from the event at ``start``."""

    tenant: str
    stream: str
    no: int
    start: int
    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    @property
    def values(self) -> tuple[int, int, int, int]:
        """What ``WALK`` takes."""
        return self.start, self.no, self.first, self.last

    def events(self, rows: list[Row]) -> list[StoredEvent]:
        """The events in order. Raises ``IntegrityError`` when one is missing."""
        rows.sort(key=itemgetter(1))
        if [row[1] for row in rows] != list(range(self.first, self.last + 1)):
            raise IntegrityError(f"Events of {self.stream} are missing from the store.", code="log_gap")
        return [StoredEvent(self.tenant, self.stream, *row) for row in rows]


def plan(few: Few, tenant: str, stream: str, after_version: int, limit: int | None) -> Walk | None:
    """How to read up to ``limit`` events after a version; None when there are none."""
    head = few(_HEAD, (tenant, stream))
    if not head or limit == 0:
        return None
    no, version, last = head[0]
    end = version if limit is None else min(version, after_version + limit)
    if end <= after_version:
        return None
    milestone = -(-end // MILESTONE) * MILESTONE
    start = last
    if milestone < version:
        found = few(_MILESTONE, (no, milestone))
        start = found[0][0] if found else last
    return Walk(tenant, stream, no, start, after_version + 1, end)


def log_query(tenant_no: int, from_seq: int, limit: int, types: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    """The select of a tenant's leaves in order; each row is the stream's name and the event."""
    base = tenant_no << SEQ_BITS
    among = f" AND e.type IN ({', '.join('?' * len(types))})" if types else ""
    return f"{_LOG}{among} ORDER BY e.pos LIMIT ?", (
        base + max(from_seq, 0),
        base + (1 << SEQ_BITS),
        *types,
        max(limit, 0),
    )
