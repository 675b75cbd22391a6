"""Connections to the SQLite file, and what SQLite's errors mean to a caller."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Literal

from charter.errors import CharterError, Conflict, IntegrityError, InvalidInput, Misconfigured, Unavailable

Synchronous = Literal["FULL", "NORMAL", "EXTRA"]
BUSY_SECONDS = 10.0
CHECKPOINT_PAGES = 4000
"""About 16 MB of log between checkpoints into the main file: fewer, larger ones keep the tail of latencies short."""
LOOK_SECONDS = 0.05
"""Between two looks whether the file is still the one that was opened: a look costs what a small part of a commit does."""
_WAL_BYTES_KEPT = 64 * 1024 * 1024
_FRAME = 4096 + 24

_LACKS_SPACE = frozenset((sqlite3.SQLITE_FULL,))
_NOT_A_LEDGER = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_BUSY = frozenset((sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL))
_NO_ACCESS = frozenset((sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH))


def connect(
    path: Path, busy_seconds: float = BUSY_SECONDS, *, write: bool, synchronous: Synchronous = "FULL"
) -> sqlite3.Connection:
    """A connection in autocommit mode that any one thread at a time may use. Raises ``sqlite3.Error`` or ``Misconfigured``.

    The file is made for its owner only (0600); SQLite gives its companions the same rights.
    """
    if write:
        _make_private(path)
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        _prepare(connection, write, synchronous)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, write: bool, synchronous: Synchronous) -> None:
    if not write:
        connection.execute("PRAGMA query_only = ON")
        return
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Misconfigured(
            f"SQLite cannot keep a write-ahead log here (it offers {mode!r}).",
            next_step="Keep the store on a local disk, in a file of its own.",
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {4 * CHECKPOINT_PAGES}")  # the writer makes them sooner by itself
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
    connection.execute("PRAGMA cache_size = -16000")
    # Erased bytes are overwritten; REPLACE cannot get round the triggers that refuse DELETE.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA recursive_triggers = ON")


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the main file and empty it; gives up when another's reading holds it for long."""
    (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute("PRAGMA busy_timeout = 200")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience}")


def lengthen_log(connection: sqlite3.Connection, pages: int) -> None:
    """Write the log's file out, with zeros, to the length that it takes for ``pages`` and some; nothing when it is so long.

    A commit into blocks that the file has is one write to the disk; one that makes it longer costs the file system's journal
    as well. Zeros behind the log mean nothing: it ends at the first frame without its salt
    (https://www.sqlite.org/fileformat2.html#walformat). What fails here is left to the commits, which will tell.
    """
    (path,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
    with suppress(OSError, sqlite3.Error), open(f"{path}-wal", "r+b", buffering=0) as log:
        connection.execute("BEGIN IMMEDIATE")  # no other process may put a frame where the zeros go
        try:
            _fill(log, log.seek(0, os.SEEK_END), (pages + pages // 8) * _FRAME)
        finally:
            connection.execute("ROLLBACK")
        os.fsync(log.fileno())


def _fill(log: FileIO, start: int, end: int) -> None:
    zeros = memoryview(bytes(max(0, end - start)))
    try:
        while zeros:
            zeros = zeros[log.write(zeros) :]
    except OSError:
        log.truncate(start)  # the disk is full: commits may have what is left of it
        raise


class Place:
    """Where the opened file is. SQLite itself goes on writing into one that was moved, deleted or replaced."""

    __slots__ = ("_looked", "_path", "_was")

    def __init__(self, connection: sqlite3.Connection) -> None:
        (self._path,) = (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main")
        self._was, self._looked = _identity(self._path), 0.0

    def check(self) -> None:
        """Raises ``Unavailable`` (``store_replaced``). It looks every ``LOOK_SECONDS``, not at each commit."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        if _identity(self._path) != self._was:
            raise Unavailable(
                f"The store's file {self._path} was deleted, moved or replaced while Charter had it open.",
                code="store_replaced",
                next_step="Stop every Charter that uses it, put the right file there with its -wal, and start again.",
            )
        self._looked = now


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise Misconfigured(
            f"The store's file {path} cannot be made or written: {error.strerror}.",
            next_step="Give the server a path that it may write.",
        ) from None


def translate(error: BaseException, *, committing: bool = False) -> CharterError:
    """What a caller is told of an error of SQLite's.

    ``committing``: it came from COMMIT itself. An input/output error there may or may not have left the
    transaction in the log, so ``unknown`` stands in the detail.
    """
    if isinstance(error, CharterError):
        return error
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"The store refuses it: {error}.", code="constraint")
    if isinstance(error, UnicodeDecodeError) or _undecodable(error):  # never the text: it is somebody's
        return IntegrityError("The store's file is damaged: a text in it is not UTF-8.", code="store_damaged")
    if isinstance(error, (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError)):
        return InvalidInput(f"The store cannot hold a value: {type(error).__name__}.", code="unstorable")
    if isinstance(error, (TypeError, OverflowError)):
        return InvalidInput(f"The store cannot hold a value: {type(error).__name__}.", code="unstorable")
    return _of_the_file(error, committing)


def _undecodable(error: BaseException) -> bool:
    """A column's text is not UTF-8. It is Python's module that says so, with no code of SQLite's."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def _of_the_file(error: BaseException, committing: bool) -> CharterError:
    if not isinstance(error, sqlite3.Error):
        return Unavailable(f"The store failed: {type(error).__name__}.", code="store_failed")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _LACKS_SPACE:
        return Unavailable(
            "The disk is full.", code="store_full", next_step="Free space on the store's disk, then try again."
        )
    if code in _NOT_A_LEDGER:
        return IntegrityError(f"The store's file is damaged: {error}.", code="store_damaged")
    if code in _BUSY:
        return Unavailable("Another process holds the store's write lock.", code="store_busy")
    if code in _NO_ACCESS:
        return Misconfigured(
            f"The store's file cannot be opened or written: {error}.",
            code="store_no_access",
            next_step="Check the path, its owner and its rights, and that the disk is not mounted read-only.",
        )
    return Unavailable(
        f"The store does not answer: {error}.",
        code="store_unavailable",
        next_step="Look at the disk that holds the store, then try again.",
        detail={"unknown": True} if committing else None,
    )
