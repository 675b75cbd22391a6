"""``python -m bench [NAMES…] [--quick] [--json FILE] [--docs]``: measure, print the tables, say which promises hold.

Names: calls, decisions, appends, verification, growth, memory, workflows, waiting, lists; none means all.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import (
    appends,
    calls,
    decisions,
    filling,
    growth,
    lists,
    memory,
    processes,
    report,
    verification,
    waiting,
    workflows,
)

QUICK_SIZES = (1_000, 10_000)


@dataclass(slots=True)
class Bench:
    """One run. ``pace`` is full, quick or quickest."""

    pace: str
    made_of: filling.Sample | None = None

    async def sample(self) -> filling.Sample:
        self.made_of = self.made_of or await filling.sample()
        return self.made_of

    async def calls(self) -> Any:
        effort = {"full": calls.FULL, "quick": calls.QUICK, "quickest": calls.QUICKEST}[self.pace]
        return await calls.run(effort, say, calls.CONCURRENCY if self.pace != "quickest" else (1, 4))

    async def decisions(self) -> Any:
        return await asyncio.to_thread(decisions.run)

    async def appends(self) -> Any:
        return await appends.run()

    async def verification(self) -> Any:
        events, rounds = {"full": (200_000, 7), "quick": (20_000, 3), "quickest": (2_000, 1)}[self.pace]
        return await verification.run(await self.sample(), events, rounds)

    async def growth(self) -> Any:
        sizes = {"full": growth.SIZES, "quick": QUICK_SIZES, "quickest": (1_000, 2_000)}[self.pace]
        seconds = {"full": 5.0, "quick": 1.0, "quickest": 0.1}[self.pace]
        return await growth.run(await self.sample(), sizes, seconds, say)

    async def memory(self) -> Any:
        return await memory.run({"full": 50_000, "quick": 2_000, "quickest": 200}[self.pace], say)

    async def workflows(self) -> Any:
        efforts = {"full": workflows.FULL, "quick": workflows.QUICK, "quickest": workflows.QUICKEST}
        return await workflows.run(efforts[self.pace], say)

    async def waiting(self) -> Any:
        efforts = {"full": waiting.FULL, "quick": waiting.QUICK, "quickest": waiting.QUICKEST}
        return await waiting.run(efforts[self.pace], say)

    async def lists(self) -> Any:
        sizes = {"full": lists.SIZES, "quick": lists.QUICK_SIZES, "quickest": (100, 200)}[self.pace]
        return await lists.run(sizes, {"full": 60, "quick": 40, "quickest": 1}[self.pace], say)


NAMES = ("calls", "decisions", "appends", "verification", "growth", "memory", "workflows", "waiting", "lists")


def say(line: str) -> None:
    """Progress, on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NAMES, []], help=", ".join(NAMES))
    parser.add_argument("--quick", dest="pace", action="store_const", const="quick", default="full")
    parser.add_argument("--quickest", dest="pace", action="store_const", const="quickest", help="only to see it work")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; those of other names there are kept"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its plots")
    return parser.parse_args(argv)


async def measure(pace: str, names: tuple[str, ...]) -> dict[str, Any]:
    """The figures of the named parts."""
    bench, results = Bench(pace), {"machine": report.machine()}
    for name in names:
        say(f"{name} …")
        part: Callable[[], Awaitable[Any]] = getattr(bench, name)
        results[name] = await part()
    return results


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 whatever the figures are: a busy machine is no failure."""
    given = parse(argv)
    results = asyncio.run(measure(given.pace, tuple(given.names) or NAMES))
    if given.json is not None:
        known = orjson.loads(given.json.read_bytes()) if given.json.exists() else {}
        results = {**known, **results}
        given.json.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    if given.docs:
        report.write_docs(results, processes.ROOT / "docs")
    print(report.text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
