"""Is what stands beside the log what the log makes of it? The lists are made anew in a database of their own and compared.

That database is a file without a name which SQLite takes away by itself, so memory does not grow with the log. Everything is
read in one transaction: what others commit meanwhile is not seen.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

from charter.audit.merkle import Frontier
from charter.store.port import Batch, Difference, Relisting, StoredEvent
from charter.store.sqlite import streams
from charter.store.sqlite.book import BAND, SEQ_BITS, Book
from charter.store.sqlite.migrating import migrate

Row = tuple[Any, ...]
Same = Callable[[str, str], bool]

LISTS = {
    "workflows": ("workflow_id",),
    "approvals": ("approval_id",),
    "effects": ("effect_id",),
    "waits": ("type", "workflow_id", "step_id"),
}
"""The lists, and what a row of each is found by within its tenant."""
ASTRAY = """
SELECT name, seq FROM places WHERE tenant = ?1
AND seq NOT BETWEEN 0 AND ifnull((SELECT size FROM tenants WHERE tenant = ?1), 0) ORDER BY name
"""
"""Places at which no reader of the log can be. Where one is within the log is not on record, so only that can be said."""
_PAGE = 512
_SHOWN = 80
_PAST = (1 << SEQ_BITS) - 1

_STREAMS = """
SELECT s.stream, s.version, s.last, e.version, e.last FROM streams AS s LEFT JOIN (
    SELECT stream, max(version) AS version, max(pos) AS last FROM events WHERE pos BETWEEN ?2 AND ?3 GROUP BY stream
) AS e ON e.stream = s.no
WHERE s.tenant = ?1 AND (s.version IS NOT e.version OR s.last IS NOT e.last) ORDER BY s.stream
"""
_CHAIN = """
SELECT pos & ?3, version FROM (
    SELECT pos, version, prev, lag(pos) OVER (PARTITION BY stream ORDER BY pos) AS before
    FROM events WHERE pos BETWEEN ?1 AND ?2
) WHERE prev IS NOT before ORDER BY pos
"""
_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"


def differences(connection: sqlite3.Connection, tenant: str, made: Relisting, most: int) -> list[Difference]:
    """See the port. The connection is in no transaction."""
    connection.execute("BEGIN")
    try:
        found = list(islice(_of_pointers(connection, tenant), most))
        if not found:  # only then can the streams be read as they were written
            with closing(made_anew(connection, tenant, made)) as scratch:
                found = list(islice(_of_lists(connection, scratch, tenant, made), most))
        return found
    finally:
        connection.execute("ROLLBACK")


def tenant_range(connection: sqlite3.Connection, tenant: str) -> tuple[int, int, int]:
    """The tenant's number, and the first and last ``pos`` that its events may have."""
    row = connection.execute("SELECT no FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
    no = int(row[0]) if row else 0
    return no, no << SEQ_BITS, (no << SEQ_BITS) + _PAST


# -- what the log is found by


def _of_pointers(connection: sqlite3.Connection, tenant: str) -> Iterator[Difference]:
    yield from schema_differences(connection)
    no, first, last = tenant_range(connection, tenant)
    for stream, version, _, right, _ in connection.execute(_STREAMS, (tenant, first, last)):
        yield Difference(
            "streams", stream, f"version {version}, the log's last is {right}, or another event is its last"
        )
    for seq, version in connection.execute(_CHAIN, (first, last, _PAST)):
        yield Difference("events", str(seq), f"the pointer to the event before version {version} leads elsewhere")
    kept = iter(connection.execute("SELECT level, idx, hash FROM nodes WHERE tenant = ? ORDER BY idx, level", (no,)))
    held = {(level, index): hash_ for level, index, hash_ in kept}
    for level, index, hash_ in nodes(connection, first, last):
        if held.pop((level, index), None) != hash_:
            yield Difference("nodes", f"{level}/{index}", "not the hash of the events below it")
    for level, index in held:
        yield Difference("nodes", f"{level}/{index}", "the log has no such node")


def schema_differences(connection: sqlite3.Connection) -> Iterator[Difference]:
    """Tables, indexes and triggers that are not those of the migrations. Triggers are what refuses changes."""
    shipped, here = schema(), {row[1]: row for row in connection.execute(_SCHEMA)}
    for name, row in shipped.items():
        if here.get(name) != row:
            yield Difference("schema", name, f"the {row[0]} {'was changed' if name in here else 'is missing'}")
    for name, row in here.items():
        if row[0] == "trigger" and name not in shipped:
            yield Difference("schema", name, "a trigger that is not Charter's")


def schema() -> dict[str, Row]:
    """Type, name and statement of everything that the migrations make."""
    with closing(_empty()) as scratch:
        return {row[1]: row for row in scratch.execute(_SCHEMA)}


def nodes(connection: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[int, int, bytes]]:
    """The nodes that the stored hashes give."""
    tree = Frontier()
    for (hash_,) in connection.execute(
        "SELECT leaf_hash FROM events WHERE pos BETWEEN ? AND ? ORDER BY pos", (first, last)
    ):
        for level, index, node in tree.append_with_nodes(hash_):
            if level % BAND == 0:
                yield level, index, node


# -- lists and claims


def made_anew(connection: sqlite3.Connection, tenant: str, made: Relisting) -> sqlite3.Connection:
    """A database of its own with the lists and claims that the tenant's log gives."""
    scratch = _empty()
    try:
        book = Book(scratch)
        names = connection.execute("SELECT stream FROM streams WHERE tenant = ? ORDER BY stream", (tenant,))
        for (stream,) in names:
            batches = made.make(stream, _events(connection, tenant, stream))
            while some := list(islice(batches, _PAGE)):
                book.put_lists(some)
                _put_claims(scratch, tenant, some)
                _put_sealed(scratch, tenant, some)
        return scratch
    except BaseException:
        scratch.close()
        raise


def _empty() -> sqlite3.Connection:
    scratch = sqlite3.connect("", isolation_level=None)
    scratch.execute("PRAGMA journal_mode = OFF")
    scratch.execute("PRAGMA synchronous = OFF")
    migrate(scratch)
    scratch.execute("BEGIN")
    return scratch


def _events(connection: sqlite3.Connection, tenant: str, stream: str) -> Iterator[StoredEvent]:
    def few(sql: str, values: Any) -> list[Row]:
        return connection.execute(sql, values).fetchall()

    after = 0
    while (walk := streams.plan(few, tenant, stream, after, _PAGE)) is not None:
        yield from walk.events(few(streams.WALK, walk.values))
        after = walk.last


def _put_claims(scratch: sqlite3.Connection, tenant: str, batches: Iterable[Batch]) -> None:
    """Where several ask for one key, the first has it: templates are claimed by the first of their runs."""
    values = [(tenant, claim.scope, claim.key, claim.value) for batch in batches for claim in batch.claims]
    if values:
        scratch.executemany("INSERT OR IGNORE INTO claims (tenant, scope, key, value) VALUES (?, ?, ?, ?)", values)


def _put_sealed(scratch: sqlite3.Connection, tenant: str, batches: Iterable[Batch]) -> None:
    """What events refer to. A proposal and its call refer to the same."""
    values = [(tenant, sealed.ref, "", b"") for batch in batches for sealed in batch.sealed]
    if values:
        scratch.executemany("INSERT OR IGNORE INTO sealed (tenant, ref, key_id, blob) VALUES (?, ?, ?, ?)", values)


def _of_lists(
    connection: sqlite3.Connection, scratch: sqlite3.Connection, tenant: str, made: Relisting
) -> Iterator[Difference]:
    for table, key in LISTS.items():
        columns = columns_of(scratch, table)
        sql = f"SELECT {', '.join((*key, *columns))} FROM {table} WHERE tenant = ? ORDER BY {', '.join(key)}"  # noqa: S608
        pairs = _paired(connection.execute(sql, (tenant,)), scratch.execute(sql, (tenant,)), len(key))
        for name, row, right in pairs:
            if text := _told(row, right, columns, [made.same.get(f"{table}.{column}") for column in columns]):
                yield Difference(table, "/".join(name), text)
    sql = "SELECT scope, key, value FROM claims WHERE tenant = ? ORDER BY scope, key"
    for name, row, right in _paired(connection.execute(sql, (tenant,)), scratch.execute(sql, (tenant,)), 2):
        if right is None and name[0] not in made.scopes:
            continue
        if text := _told(row, right, ("value",), (None,)):
            yield Difference("claims", ":".join(name), text)
    sql = (
        "SELECT ref FROM sealed WHERE tenant = ? ORDER BY ref"  # what is missing may have been erased: asked elsewhere
    )
    for (ref,), _, right in _paired(connection.execute(sql, (tenant,)), scratch.execute(sql, (tenant,)), 1):
        if right is None:
            yield Difference("sealed", str(ref), "no event refers to it")
    for name, seq in connection.execute(ASTRAY, (tenant,)):
        yield Difference("places", str(name), f"{seq} is no place in the log")


def columns_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """A list's columns without the tenant and what a row is found by."""
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return tuple(name for name in names if name != "tenant" and name not in LISTS[table])


def _paired(here: Iterator[Row], made: Iterator[Row], key: int) -> Iterator[tuple[Row, Row | None, Row | None]]:
    """Rows of two cursors in the order of their keys, side by side; None where one of them has no such row."""
    row, right = next(here, None), next(made, None)
    while row is not None or right is not None:
        if right is None or (row is not None and row[:key] < right[:key]):
            assert row is not None
            yield row[:key], row, None
            row = next(here, None)
        elif row is None or right[:key] < row[:key]:
            yield right[:key], None, right
            right = next(made, None)
        else:
            yield row[:key], row, right
            row, right = next(here, None), next(made, None)


def _told(row: Row | None, right: Row | None, columns: Sequence[str], same: Sequence[Same | None]) -> str | None:
    """How two rows differ, if they do. Their last values are those of the columns."""
    if row == right:
        return None
    if row is None:
        return "missing"
    if right is None:
        return "the log knows nothing of it"
    key = len(row) - len(columns)
    for name, value, wanted, alike in zip(columns, row[key:], right[key:], same, strict=True):
        if value != wanted and not (alike is not None and alike(value, wanted)):
            return f"{name} is {_short(value)}, the log says {_short(wanted)}"
    return None


def _short(value: Any) -> str:
    text = "another" if isinstance(value, str) and value.startswith("{") else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
