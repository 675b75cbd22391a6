"""Durable event appends: Charter's store beside a bare group-commit writer of rows of the same size, in one run.

``run`` gives, for 1, 16 and 64 concurrent callers, rows a second and latencies of both, and the ratio that the
project promises (at 64 callers at least a third). The bare writer does what group commit needs and no more: a
thread, a queue, one INSERT into a table with an integer key, COMMIT, answers.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from charter.store.port import Batch, NewEvent
from charter.store.sqlite import SqliteStore

EACH = {1: 500, 16: 300, 64: 200}
"""How many appends each of so many callers makes."""
ROW_BYTES = 384
ROUNDS = 5
Append = Callable[[int, int], Awaitable[Any]]


class BareWriter:
    """The yardstick: durable rows of bytes by group commit, without ledger, versions or hashes."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        self._queue: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def append(self, data: bytes) -> asyncio.Future[None]:
        future = self._loop.create_future()
        self._queue.put((data, future))
        return future

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._db.close()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first, *(item for _ in range(self._queue.qsize()) if (item := self._queue.get()))]
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO rows (data) VALUES (?)", [(data,) for data, _ in group])
            self._db.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._deliver, [future for _, future in group])

    @staticmethod
    def _deliver(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            future.set_result(None)


def event(caller: int, count: int) -> NewEvent:
    """An event whose leaf has about ``ROW_BYTES`` bytes."""
    return NewEvent(
        id=f"evt_0192aaaa-bbbb-7ccc-{caller:04d}-{count:012d}",
        type="TOOL_INVOKE",
        time="2026-11-21T08:00:00.000Z",
        actor={"kind": "agent", "id": "agent-7"},
        data={"tool": "casebook__reply", "status": "running", "call": count},
        causation_id="cmd_0192aaaa-bbbb-7ccc-8ddd-000000000000",
        correlation_id="wf_0192aaaa-bbbb-7ccc-8ddd-000000000000",
    )


async def measure(append: Append, callers: int) -> dict[str, float]:
    """Rows a second and latencies in ms of so many callers, each with one append under way."""
    taken: list[float] = []

    async def call(caller: int) -> None:
        for count in range(EACH[callers]):
            start = time.perf_counter()
            await append(caller, count)
            taken.append(time.perf_counter() - start)

    begin = time.perf_counter()
    await asyncio.gather(*(call(caller) for caller in range(callers)))
    elapsed = time.perf_counter() - begin
    taken.sort()
    return {
        "per_second": len(taken) / elapsed,
        "p50_ms": taken[len(taken) // 2] * 1e3,
        "p99_ms": taken[len(taken) * 99 // 100] * 1e3,
    }


async def once(folder: Path, callers: int) -> tuple[dict[str, float], dict[str, float]]:
    """One side-by-side measurement, from values in memory to durable: the bare writer, then the store."""
    bare = BareWriter(folder / "bare.db")
    row = b"x" * ROW_BYTES
    try:
        yardstick = await measure(lambda caller, count: bare.append(row), callers)
    finally:
        bare.close()
    batches = [
        [Batch("default", f"wf_{caller}", count, (event(caller, count),)) for count in range(EACH[callers])]
        for caller in range(callers)
    ]
    store = SqliteStore(folder / "charter.db")
    await store.open()
    try:
        return yardstick, await measure(lambda caller, count: store.append(batches[caller][count]), callers)
    finally:
        await store.close()


async def run() -> dict[str, Any]:
    """``{callers: {"bare": …, "store": …, "ratio": …}}``, each the median of some rounds."""
    table: dict[str, Any] = {}
    for callers in EACH:
        rounds = []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                rounds.append(await once(Path(folder), callers))
        names = rounds[0][0]
        bare, store = ({name: statistics.median(r[side][name] for r in rounds) for name in names} for side in (0, 1))
        ratio = statistics.median(r[1]["per_second"] / r[0]["per_second"] for r in rounds)
        table[str(callers)] = {"bare": bare, "store": store, "ratio": ratio}
    return table


if __name__ == "__main__":
    for callers, line in asyncio.run(run()).items():
        print(callers, line)
