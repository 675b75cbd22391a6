"""The server's resident memory over many calls, by callers that end their workflow and start another, as agents do."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from bench import processes
from bench.contest import ARGUMENTS, EXPECTED
from bench.governed import Sessions, install, served
from bench.rpc import Connection

CALLERS = 16
CALLS_A_WORKFLOW = 100
SAMPLES = 50


async def run(calls: int, say: Any) -> dict[str, Any]:
    """``{"points": [{"calls", "rss_mb"}], "growth_mb": …}``; growth is from a fifth of the calls to the end."""
    points: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="charter-bench-") as name,
        processes.module("upstream") as upstream,
        served(install(Path(name), upstream)) as running,
    ):
        sessions = Sessions(running)
        await sessions.start(CALLERS)
        connections = [await sessions.target.connect() for _ in range(CALLERS)]
        done = 0
        points.append({"calls": 0, "rss_mb": running.rss_mb()})
        step = max(1, calls // SAMPLES // CALLERS)
        while done < calls:
            begin = done // CALLERS
            await asyncio.gather(*(_some(sessions, connections[i], i, begin, step) for i in range(CALLERS)))
            done += step * CALLERS
            points.append({"calls": done, "rss_mb": running.rss_mb()})
            say(f"memory: {done:,} of {calls:,} calls, {points[-1]['rss_mb']:.0f} MiB")
        for connection in connections:
            connection.close()
    settled = points[len(points) // 5]
    return {"points": points, "growth_mb": points[-1]["rss_mb"] - settled["rss_mb"], "since_calls": settled["calls"]}


async def _some(sessions: Sessions, connection: Connection, caller: int, begin: int, calls: int) -> None:
    for number in range(begin, begin + calls):
        if number % CALLS_A_WORKFLOW == CALLS_A_WORKFLOW - 1:
            await sessions.renew(caller)
        assert EXPECTED in await connection.post(sessions.by_name(caller, ARGUMENTS))
