"""Numbered SQL migrations: each is applied once, in order, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from importlib.resources import files

from charter.errors import Misconfigured

_SCHEMA_VERSION = "CREATE TABLE schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT"


def migrations() -> list[tuple[int, str, str]]:
    """``(number, name, sql)`` of every shipped migration, in order."""
    found = []
    for file in (files("charter.store") / "migrations" / "sqlite").iterdir():
        if file.name[:4].isdecimal():  # beside them lies schema.sql, their sum
            found.append((int(file.name[:4]), file.name, file.read_text(encoding="utf-8")))
    return sorted(found)


def statements(sql: str) -> Iterator[str]:
    """The single statements of a script; unlike ``executescript`` it commits nothing."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest schema. Raises ``Misconfigured`` for a newer Charter's file, or somebody else's."""
    shipped = migrations()
    if _version(connection) == shipped[-1][0]:
        return
    connection.execute("BEGIN IMMEDIATE")  # another process may migrate at the same time: look again inside
    try:
        current = _version(connection)
        if current > shipped[-1][0]:
            raise Misconfigured(
                f"The store's file has schema {current}; this Charter knows up to {shipped[-1][0]}.",
                code="store_newer",
                next_step="Start the newer Charter that wrote it, or restore a backup from before.",
            )
        if current == 0:
            connection.execute(_SCHEMA_VERSION)
        for number, name, sql in shipped:
            if number > current:
                for statement in statements(sql):
                    connection.execute(statement)
                connection.execute("INSERT INTO schema_version (version, name) VALUES (?, ?)", (number, name))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    """The file's schema number, 0 for an empty file."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "schema_version" in tables:
        (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        return int(version)
    if tables:
        raise Misconfigured(
            "The file is an SQLite database, but not a Charter store.",
            code="store_foreign",
            next_step="Name another file; Charter makes it when it is not there.",
        )
    return 0
