"""What a governed call costs as the log grows to a million events: the curve should be flat.

The store is filled with copies of a really recorded workflow, then a real server is started on it and measured, in turns
with the bare proxy, whose curve shows what of it is the machine.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import disk, processes
from bench.contest import ARGUMENTS, EXPECTED
from bench.filling import TENANT, Sample, fill
from bench.governed import Installed, Sessions, install, served
from bench.load import drive
from bench.processes import Running
from bench.rpc import Target
from charter.store.sqlite import SqliteStore

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
ROUNDS = 5


async def run(made_of: Sample, sizes: Sequence[int], seconds: float, say: Any) -> dict[str, Any]:
    """``{"points": [{"events", "charter_ms", "bare_ms", "x_p50", "start_seconds"}]}``, p50 of sequential calls."""
    points = []
    number = 0
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name, processes.module("upstream") as upstream:
        installed = install(Path(name), upstream)
        await _touch(installed)
        with processes.module("bare", upstream.url) as bare:
            for size in sizes:
                number, events = await _fill(installed, size, made_of, number)
                points.append({"events": events, **await _measure(installed, bare, seconds)})
                say(f"growth: {events:,} events: {points[-1]['charter_ms']:.2f} ms")
    first, last = points[0], points[-1]
    return {"points": points, "x_growth": last["x_p50"] / first["x_p50"], "disk": disk.described()}


async def _touch(installed: Installed) -> None:
    """Make the store: the server does it when it starts."""
    with served(installed):
        pass


async def _fill(installed: Installed, size: int, made_of: Sample, number: int) -> tuple[int, int]:
    store = SqliteStore(installed.database)
    await store.open()
    try:
        number = await fill(store, size, made_of, start=number)
        return number, (await store.head(TENANT)).size
    finally:
        await store.close()


async def _measure(installed: Installed, bare: Running, seconds: float) -> dict[str, float]:
    with served(installed) as running:
        sessions = Sessions(running)
        await sessions.start(1)
        plain = Target(bare.url)
        ours, theirs = [await sessions.target.connect()], [await plain.connect()]
        mine: list[float] = []
        other: list[float] = []
        for _ in range(ROUNDS):
            load = await drive(theirs, lambda _: plain.call("echo", ARGUMENTS), EXPECTED, seconds / ROUNDS)
            other.append(load.percentile_ms(0.5))
            load = await drive(ours, lambda caller: sessions.by_name(caller, ARGUMENTS), EXPECTED, seconds / ROUNDS)
            mine.append(load.percentile_ms(0.5))
        ours[0].close()
        theirs[0].close()
        return {
            "charter_ms": statistics.median(mine),
            "bare_ms": statistics.median(other),
            "x_p50": statistics.median(a / b for a, b in zip(mine, other, strict=True)),
            "rss_mb": running.rss_mb(),
        }
