"""The load: callers that each have a connection of their own and one call under way."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.rpc import Connection, result_of

Requests = Callable[[int], bytes]
"""The next request of the n-th caller, as bytes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one slice of load gave: calls, seconds from first to last, and each call's own seconds in order of length."""

    calls: int
    seconds: float
    taken: Sequence[float]

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds

    def percentile_ms(self, share: float) -> float:
        return self.taken[min(int(len(self.taken) * share), len(self.taken) - 1)] * 1e3


async def drive(connections: Sequence[Connection], requests: Requests, expected: bytes, seconds: float) -> Load:
    """So many seconds of calls on all connections at once. Raises ``CallFailed`` when an answer lacks ``expected``."""
    taken: list[float] = []
    clock = time.perf_counter
    begin = clock()
    end = begin + seconds

    async def caller(number: int, connection: Connection) -> None:
        while True:  # at least one call each, however short the slice
            request = requests(number)
            start = clock()
            body = await connection.post(request)
            taken.append(clock() - start)
            if expected not in body or b'"isError":true' in body:
                result_of(body)
                raise AssertionError(f"the answer lacks {expected!r}: {body[:500]!r}")
            if clock() >= end:
                return

    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*(caller(number, connection) for number, connection in enumerate(connections)))
    finally:
        gc.enable()
    elapsed = clock() - begin
    taken.sort()
    return Load(len(taken), elapsed, taken)
