"""The one writer: a thread that owns the writing connection and commits what has queued up as one group.

A group is one transaction. Its members are answered after COMMIT has returned, all in one call into their event loop; if
COMMIT fails, all of them fail. A member that cannot be stored does not harm the others: the group is rolled back
and its members are committed one by one.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from charter.audit.envelope import LeafDraft
from charter.errors import CharterError
from charter.store.port import Appended, Batch
from charter.store.sqlite.book import Book
from charter.store.sqlite.connection import translate

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
_MAX_GROUP = 1024


@dataclass(slots=True, eq=False)
class _Append:
    """A batch in the queue, with whom to answer and what. It is the book's ``Unit``."""

    batch: Batch
    drafts: Sequence[LeafDraft]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    answer: Appended | CharterError | None = None


@dataclass(slots=True, eq=False)
class _Run:
    """Another write in the queue; ``alone``: outside any transaction."""

    job: Job
    alone: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    answer: Any = None


_Entry = _Append | _Run


class _GroupError(Exception):
    """A transaction that left nothing; or, when it was ``committing``, perhaps not nothing."""

    def __init__(self, cause: Exception, committing: bool) -> None:
        super().__init__(str(cause))
        self.cause, self.committing = cause, committing


class Writer:
    """``append`` and ``run`` from an event loop; ``stop`` from any thread, once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._book = Book(connection)
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="charter-writer", daemon=True)
        self._thread.start()

    def append(self, batch: Batch, drafts: Sequence[LeafDraft]) -> asyncio.Future[Appended]:
        """Done when it is durable. A caller that is cancelled meanwhile does not know whether it was written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._queue.put(_Append(batch, drafts, loop, future))
        return future

    def run(self, job: Callable[[sqlite3.Connection], T], *, alone: bool = False) -> asyncio.Future[T]:
        """Run ``job`` inside a group's transaction, or ``alone`` after it; done when it is durable. It must not commit."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Run(job, alone, loop, future))
        return future

    def stop(self) -> None:
        """Commit what is queued, end the thread and close the connection. Nothing may be submitted after it."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        running = True
        while running:
            group = [self._queue.get()]
            for _ in range(min(self._queue.qsize(), _MAX_GROUP - 1)):
                group.append(self._queue.get())
            running = None not in group
            entries = [entry for entry in group if entry is not None]
            alone = [entry for entry in entries if isinstance(entry, _Run) and entry.alone]
            self._settle([entry for entry in entries if entry not in alone] if alone else entries)
            self._settle_alone(alone)
        self._connection.close()

    def _settle_alone(self, entries: list[_Run]) -> None:
        for entry in entries:
            try:
                entry.answer = entry.job(self._connection)
            except Exception as error:
                entry.answer = translate(error)
        _answer(entries)

    def _settle(self, entries: list[_Entry]) -> None:
        if not entries:
            return
        try:
            self._transact(entries)
        except _GroupError as failure:
            if len(entries) > 1 and not failure.committing and _is_of_one(failure.cause):
                for entry in entries:
                    self._settle([entry])
                return
            for entry in entries:
                entry.answer = translate(failure.cause, committing=failure.committing)
        _answer(entries)

    def _transact(self, entries: list[_Entry]) -> None:
        appends = [entry for entry in entries if isinstance(entry, _Append)]
        committing = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for entry, answer in zip(appends, self._book.write(appends), strict=True):
                entry.answer = answer
            if len(appends) < len(entries):
                for other in entries:
                    if isinstance(other, _Run):
                        other.answer = other.job(self._connection)
            committing = True
            self._connection.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            raise _GroupError(error, committing) from None

    def _roll_back(self) -> None:
        self._book.forget()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            # SQLite has rolled back by itself after some errors; BEGIN will tell if it has not.
            return


def _is_of_one(error: Exception) -> bool:
    """May the error be one member's own fault? Then the others deserve another try; a sick file fails all."""
    if isinstance(error, sqlite3.Error):
        return isinstance(
            error, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
        )
    return True


def _answer(entries: Sequence[_Entry]) -> None:
    """Give the answers in one call for each event loop, however many there are."""
    while entries:
        loop = entries[0].loop
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_deliver, [entry for entry in entries if entry.loop is loop])
        entries = [entry for entry in entries if entry.loop is not loop]


def _deliver(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if entry.future.done():
            continue  # the caller was cancelled
        if isinstance(entry.answer, CharterError):
            entry.future.set_exception(entry.answer)
        else:
            entry.future.set_result(entry.answer)
