"""A workflow of three actions that do nothing, start to result: Charter's engine beside DBOS and the Temporal dev server.

Each is a process of its own on one disk, in turns, and each keeps every step durably before the next one. Charter also
asks its policies before each step and records all of it in its ledger.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench import disk, processes

Say = Callable[[str], None]
AT_ONCE = (1, 50)
ABOUT = {
    "charter": "Charter: policies, effects, the ledger",
    "dbos": "DBOS on SQLite",
    "temporal": "the Temporal dev server on a file, as it comes",
    "temporal-tuned": "… polling its transfer queue 2,000 times a second",
}
_COMMANDS = {
    "charter": ("charter",),
    "dbos": ("dbos_sqlite",),
    "temporal": ("temporal",),
    "temporal-tuned": ("temporal", "tuned"),
}
_ANSWER_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Effort:
    """Rounds, and how many workflows a round runs: one after the other, and fifty at once."""

    rounds: int = 5
    counts: tuple[int, int] = (30, 300)


FULL, QUICK, QUICKEST = Effort(), Effort(3, (10, 100)), Effort(1, (1, 2))


@dataclass(frozen=True, slots=True)
class Engine:
    """A running contestant."""

    name: str
    process: asyncio.subprocess.Process

    async def run(self, count: int, at_once: int) -> dict[str, float]:
        """So many workflows: ``per_second``, ``p50_ms``, ``p99_ms``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count} {at_once}\n".encode())
        found: dict[str, float] = orjson.loads(await self.said(b"{"))
        return found

    async def said(self, start: bytes) -> bytes:
        """The next line that begins so; servers say other things in between."""
        assert self.process.stdout is not None
        while line := await self._line(self.process.stdout):
            if line.startswith(start):
                return line
        raise processes.NotStarted(f"{self.name} ended")

    async def _line(self, stdout: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(_ANSWER_SECONDS):  # wait_for loses a cancellation that comes with the line
            return await stdout.readline()


@asynccontextmanager
async def _engine(name: str, folder: Path) -> AsyncIterator[Engine]:
    own = folder / name
    own.mkdir()
    python = sys.executable if name == "charter" else str(processes.competitors_python())
    module, *words = _COMMANDS[name]
    process = await asyncio.create_subprocess_exec(
        python,
        "-m",
        f"bench.engines.{module}",
        str(own),
        *words,
        cwd=processes.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        engine = Engine(name, process)
        await engine.said(b"READY")
        yield engine
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def run(effort: Effort, say: Say) -> dict[str, Any]:
    """``{"levels": {at_once: {name: {per_second, p50_ms, p99_ms, x_p50, x_rate}}}, "disk": {...}, "missing": {...}}``.

    ``x_p50`` and ``x_rate`` are this engine's over DBOS's, the median over the rounds.
    """
    names = [name for name in ABOUT if name == "charter" or processes.competitors_python() is not None]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="charter-bench-")))
        engines = [await stack.enter_async_context(_engine(name, folder)) for name in names]
        for engine in engines:
            await engine.run(2, 1)
        writes, levels = [disk.probe()], {}
        for at_once, count in zip(AT_ONCE, effort.counts, strict=True):
            levels[str(at_once)] = await _level(engines, at_once, count, effort.rounds, say)
            writes.append(disk.probe())
    missing = {name: "not installed: `make bench` makes their environment" for name in ABOUT if name not in names}
    stores = {**disk.described(), "durable_write_ms": statistics.median(writes)}
    return {"levels": levels, "disk": stores, "missing": missing}


async def _level(engines: list[Engine], at_once: int, count: int, rounds: int, say: Say) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {engine.name: [] for engine in engines}
    for number in range(rounds):
        turn = number % len(engines)
        for engine in engines[turn:] + engines[:turn]:
            found[engine.name].append(await engine.run(count, at_once))
        say(f"workflows: {at_once} at once, round {number + 1} of {rounds}")
    return {name: _summary(each, found.get("dbos")) for name, each in found.items()}


def _summary(rounds: list[dict[str, float]], dbos: list[dict[str, float]] | None) -> dict[str, Any]:
    out: dict[str, Any] = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    if dbos is not None:
        pairs = list(zip(rounds, dbos, strict=True))
        out["x_p50"] = statistics.median(own["p50_ms"] / other["p50_ms"] for own, other in pairs)
        out["x_rate"] = statistics.median(own["per_second"] / other["per_second"] for own, other in pairs)
    return out
