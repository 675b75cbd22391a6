"""What the project promises of its speed, each promise with the figure of a run that keeps it or not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

P50_OVER_BARE = 1.35
RATE_OF_BARE = 0.75
DECISION_OVER_PASSES = 1.5
APPENDS_OF_BARE = 1 / 3
VERIFY_OF_HASHING = 1 / 5
GROWTH = 1.25
MEMORY_MB = 16.0
WORKFLOW_OVER_DBOS = 0.5
WORKFLOWS_OF_DBOS = 3.0
START_SECONDS = 10.0
IDLE_CPU_MS = 20.0
WAITING_MB = 100.0
LATE_MS = 100.0
FLAT = 2.0
RIVALS = ("airlock", "fastmcp-reused", "fastmcp-default")


@dataclass(frozen=True, slots=True)
class Promise:
    """``value`` against ``target``; ``at_most`` says which side is good."""

    text: str
    value: float
    target: float
    at_most: bool
    unit: str = "×"

    @property
    def kept(self) -> bool:
        return self.value <= self.target if self.at_most else self.value >= self.target


def promises(results: dict[str, Any]) -> Iterator[Promise]:
    """All promises that this run has figures for."""
    if "calls" in results:
        yield from _calls(results["calls"]["levels"])
    if "decisions" in results:
        ratio = results["decisions"]["ratio_p50"]
        yield Promise("a decision, over its bare Cedar passes", ratio, DECISION_OVER_PASSES, True)
    if "appends" in results:
        ratio = results["appends"]["64"]["ratio"]
        yield Promise("appends at 64 writers, of a bare group-commit writer", ratio, APPENDS_OF_BARE, False)
    if "verification" in results:
        ratio = results["verification"]["ratio"]["shallow"]
        yield Promise("verification, of plainly hashing the bytes again", ratio, VERIFY_OF_HASHING, False)
    if "growth" in results:
        events = results["growth"]["points"][-1]["events"]
        text = f"a call at {events:,} events, over one at {results['growth']['points'][0]['events']:,}"
        yield Promise(text, results["growth"]["x_growth"], GROWTH, True)
    if "memory" in results:
        memory = results["memory"]
        text = f"memory gained from call {memory['since_calls']:,} to {memory['points'][-1]['calls']:,}"
        yield Promise(text, memory["growth_mb"], MEMORY_MB, True, " MiB")
    if "workflows" in results:
        yield from _workflows(results["workflows"])
    if "waiting" in results:
        yield from _waiting(results["waiting"])
    if "lists" in results:
        lists = results["lists"]
        runs, first = lists["points"][-1]["runs"], lists["points"][0]["runs"]
        yield Promise(f"loading a run among {runs:,}, over one among {first:,}", lists["x_load"], FLAT, True)
        text = f"listing at {runs:,} runs, over {first:,} (worst: {lists['worst']})"
        yield Promise(text, lists["x_list"], FLAT, True)


def _workflows(measured: dict[str, Any]) -> Iterator[Promise]:
    alone, many = (measured["levels"][at_once]["charter"] for at_once in ("1", "50"))
    if "x_p50" in alone:
        text = "a workflow of three actions alone, p50 over DBOS's on SQLite"
        yield Promise(text, alone["x_p50"], WORKFLOW_OVER_DBOS, True)
        yield Promise("workflows/s at 50 at once, over DBOS's", many["x_rate"], WORKFLOWS_OF_DBOS, False)
    if "temporal-tuned" in measured["levels"]["50"]:
        ratio = many["per_second"] / measured["levels"]["50"]["temporal-tuned"]["per_second"]
        yield Promise("workflows/s at 50 at once, over the tuned Temporal dev server's", ratio, 1.0, False)


def _waiting(measured: dict[str, Any]) -> Iterator[Promise]:
    runs, full, empty = measured["runs"], measured["full"], measured["empty"]
    yield Promise(f"starting with {runs:,} waiting runs", full["start_seconds"], START_SECONDS, True, " s")
    text = "processor time a second, standing idle with them"
    yield Promise(text, full["idle_cpu_ms"], IDLE_CPU_MS, True, " ms")
    gained = full["rss_mb"] - empty["rss_mb"]
    yield Promise("memory with them, over that of an empty store", gained, WAITING_MB, True, " MiB")
    late = measured["lateness"]
    text = f"how late timers fire while {late['calls_per_second']:,.0f} calls/s go on, p99"
    yield Promise(text, late["p99_ms"], LATE_MS, True, " ms")


def _median_ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]], name: str) -> float:
    """The median over the rounds of the ratio within a round."""
    return statistics.median(mine[name] / other[name] for mine, other in zip(ours, theirs, strict=True))


def _calls(levels: dict[str, Any]) -> Iterator[Promise]:
    for callers, level in levels.items():
        ours = level.get("charter")
        if ours is None:
            continue
        if callers == "1":
            yield Promise("a governed call alone, p50 over the bare proxy", ours["x_p50"], P50_OVER_BARE, True)
        else:
            text = f"governed calls/s at {callers} at once, of the bare proxy's"
            yield Promise(text, ours["x_rate"], RATE_OF_BARE, False)
        for rival in RIVALS:
            if rival in level:
                ratio = _median_ratio(ours["rounds"], level[rival]["rounds"], "per_second")
                yield Promise(f"governed calls/s at {callers} at once, over {rival}'s", ratio, 1.0, False)
        if callers == "1":
            requests = ours["upstream_requests"]
            yield Promise("upstream requests a governed call", requests, 1.0, True, "")
