"""Readers beside the writer. WAL lets them see the last commit without waiting for the next.

Two roads, by what was measured: a select of a few rows by key takes some 10 µs, and 90 by way of a thread, so it runs
where it is asked; whatever may touch many rows runs in a small pool, so that it never holds up the event loop.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from charter.store.sqlite.connection import connect, translate

T = TypeVar("T")
Row = tuple[Any, ...]
_THREADS = 2


class Readers:
    """One connection for the event loop, and a few in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._here = connect(path, write=False)
        self._opened = [self._here]
        self._thread = threading.local()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="charter-reader")

    def few(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a select that touches few of them, at once."""
        try:
            return self._here.execute(sql, values).fetchall()
        except Exception as error:
            raise translate(error) from None

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """The first row of such a select."""
        rows = self.few(sql, values)
        return rows[0] if rows else None

    async def scan(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What ``read`` makes of a connection, in a thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, read)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise translate(error) from None

    async def many(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Rows of a select that may touch many, in a thread."""
        return await self.scan(lambda connection: connection.execute(sql, values).fetchall())

    def close(self) -> None:
        """Wait for the scans that run, and close all connections."""
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()

    def _scan(self, read: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._thread.connection = connect(self._path, write=False)
            self._opened.append(connection)
        return read(connection)
