"""The governed call beside the same call direct, through a bare proxy and through the competitors, in turns.

Rounds A B C, B C A, …: whatever else the machine does meets all alike. A ratio is taken within each round, against the bare
proxy's slice of the same round, and the median of the rounds is reported.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import disk, processes
from bench.contest import EXPECTED, Contestant, Field, field_of
from bench.load import Load, drive
from bench.rpc import Connection

CONCURRENCY = (1, 16, 64)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds, seconds a slice, and seconds of warming up."""

    rounds: int = 5
    seconds: float = 1.5
    warm: float = 0.5


FULL, QUICK, QUICKEST = Effort(), Effort(3, 0.5, 0.2), Effort(1, 0.05, 0.0)


async def run(effort: Effort, say: Say, concurrency: tuple[int, ...] = CONCURRENCY) -> dict[str, Any]:
    """``{"levels": {callers: {name: {...}}}, "missing": {...}, "about": {...}}``; see ``_summary`` for the figures."""
    async with field_of(max(concurrency)) as field:
        levels, writes = {}, []
        for callers in concurrency:
            writes.append(disk.probe())
            levels[str(callers)] = await _level(field, callers, effort, say)
        writes.append(disk.probe())
        about = {item.name: item.about for item in field.contestants}
        stores = {**disk.described(), "durable_write_ms": statistics.median(writes)}
        return {"levels": levels, "missing": field.missing, "about": about, "disk": stores}


async def _level(field: Field, callers: int, effort: Effort, say: Say) -> dict[str, Any]:
    slices: dict[str, list[dict[str, float]]] = {item.name: [] for item in field.contestants}
    connections: dict[str, list[Connection]] = {}
    try:
        for item in field.contestants:
            connections[item.name] = [await item.target.connect() for _ in range(callers)]
            await drive(connections[item.name], item.requests, EXPECTED, effort.warm)
        for number in range(effort.rounds):
            turn = number % len(field.contestants)
            for item in field.contestants[turn:] + field.contestants[:turn]:
                slices[item.name].append(await _slice(field, item, connections[item.name], effort))
            say(f"calls: {callers} at once, round {number + 1} of {effort.rounds}")
    finally:
        for each in connections.values():
            for connection in each:
                connection.close()
    return {name: _summary(rounds, slices.get("bare")) for name, rounds in slices.items()}


async def _slice(field: Field, item: Contestant, connections: list[Connection], effort: Effort) -> dict[str, float]:
    # Opened anew before the clock runs: some servers close idle connections between two of their slices, or just as one begins.
    for each in connections:
        each.close()
    connections[:] = [await item.target.connect() for _ in connections]
    before, cpu = processes.counts(field.upstream), item.running.cpu_seconds()
    load: Load = await drive(connections, item.requests, EXPECTED, effort.seconds)
    after = processes.counts(field.upstream)
    return {
        "p50_ms": load.percentile_ms(0.5),
        "p99_ms": load.percentile_ms(0.99),
        "per_second": load.per_second,
        "cpu_ms": (item.running.cpu_seconds() - cpu) / load.calls * 1e3,
        "upstream_calls": (after - before)["tools/call"] / load.calls,
        "upstream_requests": sum((after - before).values()) / load.calls,
    }


def _summary(rounds: list[dict[str, float]], bare: list[dict[str, float]] | None) -> dict[str, Any]:
    """Medians over the rounds. ``x_p50`` and ``x_rate``: this contestant's p50 and calls/s over the bare proxy's."""
    out: dict[str, Any] = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    if bare is not None:
        pairs = list(zip(rounds, bare, strict=True))
        out["x_p50"] = statistics.median(own["p50_ms"] / other["p50_ms"] for own, other in pairs)
        out["x_rate"] = statistics.median(own["per_second"] / other["per_second"] for own, other in pairs)
    out["rounds"] = rounds
    return out
