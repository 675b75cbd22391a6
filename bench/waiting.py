"""A hundred thousand runs that wait for times, signals, people and agents: starting, standing idle, and timers under load.

The same server is measured on an empty store first, which is its yardstick. Timers fall due while callers keep the server
busy; how late each is, the record says: when its wait ended by the server's clock, less when it should have.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import disk, processes
from bench.contest import ARGUMENTS, EXPECTED
from bench.governed import Installed, Sessions, install, served
from bench.load import drive
from bench.processes import Running
from bench.runs import TENANT, TIMER, WAITING, Kind, fill, pin, record
from charter.engine.outbox import Inside
from charter.model.times import unix_ms_of
from charter.server.app import now_ms
from charter.store.port import Batch
from charter.store.sqlite import SqliteStore

CALLERS = 16
LEAD_SECONDS = 3.0
"""Between putting the timers in and the first of them."""
GRACE_SECONDS = 30.0
CALM_SECONDS = 0.05
"""Processor time in a second."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many runs wait, for how many seconds the server stands idle, and the timers that fall due over how many seconds."""

    runs: int = 100_000
    idle_seconds: float = 20.0
    timers: int = 2_000
    due_seconds: float = 20.0


FULL, QUICK, QUICKEST = Effort(), Effort(idle_seconds=5.0, timers=500, due_seconds=5.0), Effort(400, 0.5, 20, 0.5)


async def run(effort: Effort, say: Any) -> dict[str, Any]:
    """``{"runs", "empty": {start_seconds, idle_cpu_ms, rss_mb}, "full": {…}, "lateness": {…}, "disk"}``.

    ``idle_cpu_ms`` is processor time a second; ``lateness`` has ``timers``, ``p50_ms``, ``p99_ms``, ``most_ms``, ``calls``.
    """
    kinds = await record(*WAITING)
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name, processes.module("upstream") as upstream:
        installed = install(Path(name), upstream)
        with served(installed):
            pass  # makes the store
        empty = await _stand(installed, effort)
        say(f"waiting: an empty store: {_said(empty)}")
        await _put_waiting(installed, kinds, effort.runs)
        say(f"waiting: {effort.runs:,} runs are there")
        full = await _stand(installed, effort)
        say(f"waiting: with them: {_said(full)}")
        lateness = await _timers(installed, kinds, effort)
        say(
            f"waiting: {lateness['timers']:,} timers: {lateness['p50_ms']:.0f} ms, p99 {lateness['p99_ms']:.0f} ms late"
        )
    return {"runs": effort.runs, "empty": empty, "full": full, "lateness": lateness, "disk": disk.described()}


def _said(stood: dict[str, float]) -> str:
    return f"up in {stood['start_seconds']:.1f} s, {stood['idle_cpu_ms']:.1f} ms/s idle, {stood['rss_mb']:.0f} MiB"


async def _stand(installed: Installed, effort: Effort) -> dict[str, float]:
    """Start the server, let it stand idle, and end it."""
    began = time.perf_counter()
    with served(installed) as running:
        took = time.perf_counter() - began
        await _calm(running, effort.idle_seconds)
        before, began = running.cpu_seconds(), time.perf_counter()
        await asyncio.sleep(effort.idle_seconds)
        used = (running.cpu_seconds() - before) / (time.perf_counter() - began)
        return {"start_seconds": took, "idle_cpu_ms": used * 1e3, "rss_mb": running.rss_mb()}


async def _calm(running: Running, patience: float) -> None:
    """Until it has done what it still does after it answers: a second with little to do, or as long as it may take."""
    for _ in range(int(3 * patience)):
        before = running.cpu_seconds()
        await asyncio.sleep(1.0)
        if running.cpu_seconds() - before <= CALM_SECONDS:
            return


async def _put_waiting(installed: Installed, kinds: Sequence[Kind], runs: int) -> None:
    store = SqliteStore(installed.database)
    await store.open()
    try:
        await pin(store, kinds)
        await fill(store, (kinds[number % len(kinds)].copy(number) for number in range(runs)))
        # A server that had recorded them would have told of them too.
        await store.move_place(TENANT, Inside.name, (await store.head(TENANT)).size)
    finally:
        await store.close()


async def _timers(installed: Installed, kinds: Sequence[Kind], effort: Effort) -> dict[str, float]:
    kind = next(kind for kind in kinds if kind.name == TIMER.name)
    with served(installed) as running:
        sessions = Sessions(running)
        await sessions.start(CALLERS)
        connections = [await sessions.target.connect() for _ in range(CALLERS)]
        first = now_ms() + int(LEAD_SECONDS * 1000)
        store = SqliteStore(installed.database)
        await store.open()
        try:
            size = (await store.head(TENANT)).size
            await fill(store, _due(kind, effort, first))
            seconds = max(0.1, (first - now_ms()) / 1000) + effort.due_seconds
            load = await drive(connections, lambda caller: sessions.by_name(caller, ARGUMENTS), EXPECTED, seconds)
            late = await _lateness(store, size, effort.timers)
        finally:
            await store.close()
            for connection in connections:
                connection.close()
    return {**late, "calls": load.calls, "calls_per_second": load.per_second}


def _due(kind: Kind, effort: Effort, first: int) -> Iterator[Batch]:
    step = effort.due_seconds * 1000 / effort.timers
    for number in range(effort.timers):
        yield kind.copy(effort.runs + number, until_ms=first + int(number * step))


async def _lateness(store: SqliteStore, at: int, timers: int) -> dict[str, float]:
    """From the events after ``at`` that ended waits. Raises ``AssertionError`` when one never comes."""
    late: list[float] = []
    deadline = time.monotonic() + GRACE_SECONDS
    while len(late) < timers:
        rows = await store.log(TENANT, at, 2_000, ("WORKFLOW_STEP",))
        for row in rows:
            data = orjson.loads(row.leaf)["data"]
            output = data.get("output") or {}
            if data.get("status") == "completed" and "ended_at" in output:
                late.append(unix_ms_of(output["ended_at"]) - unix_ms_of(output["until"]))
        at = rows[-1].seq + 1 if rows else at
        if not rows:
            assert time.monotonic() < deadline, f"{timers - len(late)} timers never fired"
            await asyncio.sleep(0.2)
    late.sort()
    return {
        "timers": len(late),
        "p50_ms": late[len(late) // 2],
        "p99_ms": late[-1 - len(late) // 100],
        "most_ms": late[-1],
    }
