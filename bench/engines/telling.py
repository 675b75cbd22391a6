"""How a contestant is driven: ``COUNT AT_ONCE`` a line on standard input, the figures as a JSON line on standard output.

Nothing but the standard library: the competitors' environment imports it too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

READY = "READY"
STEPS = 3
"""How many actions each workflow has, one after the other."""


async def obey(workflow: Callable[[int], Awaitable[None]]) -> None:
    """Say READY, then run so many workflows, so many at once, as often as told, until standard input ends."""
    print(READY, flush=True)
    loop = asyncio.get_running_loop()
    number = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        count, at_once = map(int, line.split())
        print(json.dumps(await _measure(workflow, number, count, at_once)), flush=True)
        number += count


async def _measure(
    workflow: Callable[[int], Awaitable[None]], first: int, count: int, at_once: int
) -> dict[str, float]:
    taken: list[float] = []
    numbers = iter(range(first, first + count))

    async def caller() -> None:
        for number in numbers:
            began = time.perf_counter()
            await workflow(number)
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    taken.sort()
    return {
        "per_second": count / seconds,
        "p50_ms": taken[len(taken) // 2] * 1e3,
        "p99_ms": taken[-1 - count // 100] * 1e3,
    }
