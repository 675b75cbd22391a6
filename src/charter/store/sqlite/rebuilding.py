"""Making anew from the log what stands beside it, after somebody changed it. The events themselves are never touched."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from charter.errors import IntegrityError
from charter.store.port import Relisting
from charter.store.sqlite.relisting import (
    ASTRAY,
    LISTS,
    columns_of,
    made_anew,
    nodes,
    schema,
    schema_differences,
    tenant_range,
)

_PUT_STREAM = """
UPDATE streams SET (version, last) = (
    SELECT max(version), max(pos) FROM events WHERE events.stream = streams.no AND pos BETWEEN ?2 AND ?3
) WHERE tenant = ?1
"""
_PUT_CHAIN = """
UPDATE events SET prev = chain.before FROM (
    SELECT pos, lag(pos) OVER (PARTITION BY stream ORDER BY pos) AS before FROM events WHERE pos BETWEEN ?1 AND ?2
) AS chain WHERE chain.pos = events.pos AND events.prev IS NOT chain.before
"""


def rebuild(connection: sqlite3.Connection, tenant: str, made: Relisting) -> None:
    """See the port. The connection is in no transaction; everything is one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{name.replace(chr(34), chr(34) * 2)}"')
        _put_pointers(connection, tenant)
        with closing(made_anew(connection, tenant, made)) as scratch:
            _put_lists(connection, scratch, tenant)
            _put_claims(connection, scratch, tenant, made.scopes)
            _drop_strangers(connection, scratch, tenant)
        for kind, _, sql in schema().values():
            if kind == "trigger":
                connection.execute(sql)
        if (left := next(schema_differences(connection), None)) is not None:
            raise IntegrityError(
                f"The file's schema was changed ({left.key}), which this cannot mend.",
                code="schema_changed",
                next_step="Restore the database from a backup.",
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _put_pointers(connection: sqlite3.Connection, tenant: str) -> None:
    no, first, last = tenant_range(connection, tenant)
    # A stream of which no event is left keeps no row: nothing can say what it was.
    connection.execute(
        "DELETE FROM streams WHERE tenant = ?1 AND no NOT IN (SELECT stream FROM events WHERE pos BETWEEN ?2 AND ?3)",
        (tenant, first, last),
    )
    connection.execute(_PUT_STREAM, (tenant, first, last))
    connection.execute(_PUT_CHAIN, (first, last))
    connection.execute("DELETE FROM nodes WHERE tenant = ?", (no,))
    put = "INSERT INTO nodes (tenant, level, idx, hash) VALUES (?, ?, ?, ?)"
    connection.executemany(put, ((no, *node) for node in nodes(connection, first, last)))


def _put_lists(connection: sqlite3.Connection, scratch: sqlite3.Connection, tenant: str) -> None:
    for table, key in LISTS.items():
        names = ("tenant", *key, *columns_of(scratch, table))
        rows: Any = scratch.execute(f"SELECT {', '.join(names)} FROM {table}")  # noqa: S608 - names of our own
        connection.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant,))  # noqa: S608
        marks = ", ".join("?" for _ in names)
        connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)  # noqa: S608


def _drop_strangers(connection: sqlite3.Connection, scratch: sqlite3.Connection, tenant: str) -> None:
    """Sealed bytes to which no event refers, and readers' places that are outside the log: such a one begins anew."""
    mine = {ref for (ref,) in scratch.execute("SELECT ref FROM sealed")}
    sealed = [ref for (ref,) in connection.execute("SELECT ref FROM sealed WHERE tenant = ?", (tenant,))]
    strange = [(tenant, ref) for ref in sealed if ref not in mine]
    connection.executemany("DELETE FROM sealed WHERE tenant = ? AND ref = ?", strange)
    astray = [(tenant, name) for name, _ in connection.execute(ASTRAY, (tenant,))]
    connection.executemany("DELETE FROM places WHERE tenant = ? AND name = ?", astray)


def _put_claims(
    connection: sqlite3.Connection, scratch: sqlite3.Connection, tenant: str, scopes: frozenset[str]
) -> None:
    """Those of the scopes that the log tells whole are made anew; of the others only what is missing is put back."""
    connection.executemany(
        "DELETE FROM claims WHERE tenant = ? AND scope = ?", [(tenant, scope) for scope in sorted(scopes)]
    )
    rows: Any = scratch.execute("SELECT tenant, scope, key, value FROM claims")
    connection.executemany("INSERT OR REPLACE INTO claims (tenant, scope, key, value) VALUES (?, ?, ?, ?)", rows)
