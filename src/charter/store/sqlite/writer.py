"""The one writer: it owns the writing connection and commits what has come together as one group.

A group is one transaction. Its members are answered after COMMIT has returned, all in one call into their event loop; if
COMMIT fails, all of them fail. A member that cannot be stored does not harm the others: the group is rolled back
and its members are committed one by one.

Who commits: on a disk whose commits are short, the event loop itself, once a turn, because handing a group to a thread and
back takes longer than such a commit; on any other disk, and whenever another process holds the write lock, the writer's thread.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from charter.audit.envelope import LeafDraft
from charter.errors import CharterError, Unavailable
from charter.store.port import Appended, Batch
from charter.store.sqlite.book import Book
from charter.store.sqlite.connection import CHECKPOINT_PAGES, Place, lengthen_log, translate

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], Any]
_MAX_GROUP = 1024
_MAX_GROUP_HERE = 64
"""The event loop stands still for no more than so many at once."""
SHORT_SECONDS = 0.001
"""What a commit may take, on a running average, for the event loop to make it."""
_WEIGHT_OF_NEWEST = 0.2
_LONGEST_COUNTED = 4 * SHORT_SECONDS
"""One commit that met something else on the disk does not say what the next ones take."""
_FRAMES_OF_COMMIT = 6
"""About how many pages a commit writes beside one for each event: what it takes to know when a checkpoint is due."""


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
_CHECKPOINT: Final = object()
_FIRST_PAGES = 100
"""After so many the log is made ready for four times as many, and so on: one command's is not worth it."""


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
        self._place = Place(connection)
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._turn: deque[_Append] = deque()
        self._using = threading.Lock()
        self._commit_seconds = SHORT_SECONDS  # unknown yet: the thread makes the first
        self._frames = 0
        self._due = min(_FIRST_PAGES, CHECKPOINT_PAGES)
        self._others = 0
        self.trouble: str | None = None
        (self._patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")  # only the thread may wait for another process
        self._thread = threading.Thread(target=self._serve, name="charter-writer", daemon=True)
        self._thread.start()

    def append(self, batch: Batch, drafts: Sequence[LeafDraft]) -> asyncio.Future[Appended]:
        """Done when it is durable. A caller that is cancelled meanwhile does not know whether it was written."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        entry = _Append(batch, drafts, loop, future)
        if self._commit_seconds < SHORT_SECONDS:
            self._turn.append(entry)
            loop.call_soon(self._commit_here)
        else:
            self._queue.put(entry)
        return future

    def run(self, job: Callable[[sqlite3.Connection], T], *, alone: bool = False) -> asyncio.Future[T]:
        """Run ``job`` inside a group's transaction, or ``alone`` after it; done when it is durable. It must not commit."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Run(job, alone, loop, future))
        return future

    def others_token(self) -> int:
        """The writing connection's ``data_version``, which its own commits leave as it is; the last one while it is in use."""
        if self._using.acquire(blocking=False):
            try:
                (self._others,) = self._connection.execute("PRAGMA data_version").fetchone()
            finally:
                self._using.release()
        return self._others

    def stop(self) -> None:
        """Commit what is queued, end the thread and close the connection. Nothing may be submitted after it."""
        self._hand_over()
        self._queue.put(None)
        self._thread.join()

    def _commit_here(self) -> None:
        """In the event loop: commit what was submitted in this turn of it, unless that might have to wait for somebody."""
        if not self._turn:
            return  # the first call of the turn took them all
        if len(self._turn) > _MAX_GROUP_HERE or not self._queue.empty() or not self._using.acquire(blocking=False):
            self._hand_over()
            return
        try:
            group = self._try_here()
        finally:
            self._using.release()
        _answer_here(group)
        self._checkpoint_when_due()

    def _try_here(self) -> list[_Append]:
        """The members that are settled; those that the thread must look at are in its queue."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._hand_over()  # the thread may wait for the lock, and tells the reason if it gets none either
            return []
        group = [self._turn.popleft() for _ in range(len(self._turn))]
        try:
            self._transact(group, begun=True)
        except _GroupError as failure:
            if not failure.committing:
                for entry in group:
                    self._queue.put(entry)
                return []
            for entry in group:
                entry.answer = translate(failure.cause, committing=True)
        return group

    def _hand_over(self) -> None:
        while self._turn:
            self._queue.put(self._turn.popleft())

    def _checkpoint_when_due(self) -> None:
        if self._frames >= self._due:
            self._frames, self._due = 0, min(4 * self._due, CHECKPOINT_PAGES)
            self._queue.put(_CHECKPOINT)

    def _serve(self) -> None:
        running = True
        while running:
            group = [self._queue.get()]
            for _ in range(min(self._queue.qsize(), _MAX_GROUP - 1)):
                group.append(self._queue.get())
            running = None not in group
            entries = [entry for entry in group if isinstance(entry, _Append | _Run)]
            alone = [entry for entry in entries if isinstance(entry, _Run) and entry.alone]
            with self._using, self._patient():
                self._settle([entry for entry in entries if entry not in alone] if alone else entries)
                self._settle_alone(alone)
                if _CHECKPOINT in group:
                    self._checkpoint()
            self._checkpoint_when_due()
        self._connection.close()

    @contextmanager
    def _patient(self) -> Iterator[None]:
        self._connection.execute(f"PRAGMA busy_timeout = {self._patience}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _checkpoint(self) -> None:
        # Here and not within COMMIT, where SQLite does it by itself: it takes as long as many commits.
        try:
            self._place.check()
        except Unavailable:
            return  # the log at this path is another file's; the next commit tells
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        lengthen_log(self._connection, self._due)

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

    def _transact(self, entries: Sequence[_Entry], *, begun: bool = False) -> None:
        appends = [entry for entry in entries if isinstance(entry, _Append)]
        committing = False
        try:
            if not begun:
                self._connection.execute("BEGIN IMMEDIATE")
            self._place.check()
            for entry, answer in zip(appends, self._book.write(appends), strict=True):
                entry.answer = answer
                self._frames += len(entry.drafts)
            if len(appends) < len(entries):
                for other in entries:
                    if isinstance(other, _Run):
                        other.answer = other.job(self._connection)
            committing, before = True, time.perf_counter()
            self._connection.execute("COMMIT")
            self._frames += _FRAMES_OF_COMMIT
            taken = min(time.perf_counter() - before, _LONGEST_COUNTED)
            self._commit_seconds += (taken - self._commit_seconds) * _WEIGHT_OF_NEWEST
            self.trouble = None
        except Exception as error:
            if isinstance(error, Unavailable) or not _is_of_one(error):
                self.trouble = translate(error).error_code
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


def _answer_here(entries: Sequence[_Entry]) -> None:
    """As ``_answer``, from an event loop: its own callers need no wake-up."""
    here = asyncio.get_running_loop()
    _deliver([entry for entry in entries if entry.loop is here])
    _answer([entry for entry in entries if entry.loop is not here])


def _deliver(entries: Sequence[_Entry]) -> None:
    for entry in entries:
        if entry.future.done():
            continue  # the caller was cancelled
        if isinstance(entry.answer, CharterError):
            entry.future.set_exception(entry.answer)
        else:
            entry.future.set_result(entry.answer)
