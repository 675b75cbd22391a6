"""A log of any size, made of events that a real Charter recorded: the quick way to a million of them."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from bench import processes
from bench.contest import ARGUMENTS, EXPECTED
from bench.governed import Sessions, install, served
from bench.processes import Running
from charter.store.port import Batch, NewEvent, StoredEvent, WorkflowRow
from charter.store.sqlite import SqliteStore

TENANT = "default"
CALLS = 20
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One whole workflow as it was recorded: started, so many calls, ended."""

    stream: str
    events: tuple[NewEvent, ...]
    row: WorkflowRow | None

    def copy(self, number: int) -> Batch:
        """The same workflow under ids of its own."""
        stream = f"wf_bench-{number:012d}"
        events = tuple(
            replace(event, id=f"{event.id[:-6]}-{number:08d}", correlation_id=stream) for event in self.events
        )
        row = replace(self.row, workflow_id=stream) if self.row else None
        return Batch(TENANT, stream, 0, events, workflow=row)


async def sample() -> Sample:
    """Run Charter for a moment and read back what one workflow of ``CALLS`` calls put on record."""
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name, processes.module("upstream") as upstream:
        installed = install(Path(name), upstream)
        with served(installed) as running:
            stream = await _one_workflow(running)
        store = SqliteStore(installed.database)
        await store.open()
        try:
            events = tuple(_new(item) for item in await store.load(TENANT, stream))
            return Sample(stream, events, await store.workflow(TENANT, stream))
        finally:
            await store.close()


async def _one_workflow(running: Running) -> str:
    sessions = Sessions(running)
    await sessions.start(1)
    connection = await sessions.target.connect()
    for _ in range(CALLS):
        assert EXPECTED in await connection.post(sessions.by_name(0, ARGUMENTS))
    connection.close()
    return await sessions.end(0)


def _new(stored: StoredEvent) -> NewEvent:
    leaf = orjson.loads(stored.leaf)
    names = ("id", "type", "time", "actor", "data", "causation_id", "correlation_id", "trace_id")
    return NewEvent(**{name: leaf.get(name) for name in names})


async def fill(store: SqliteStore, to: int, made_of: Sample, *, start: int = 0) -> int:
    """Append whole workflows until the log has about so many events; gives back the number of the next workflow."""
    missing = to - (await store.head(TENANT)).size
    numbers = iter(range(start, start + max(0, -(-missing // len(made_of.events)))))
    last = start

    async def writer() -> None:
        nonlocal last
        for number in numbers:
            await store.append(made_of.copy(number))
            last = max(last, number + 1)

    await asyncio.gather(*(writer() for _ in range(AT_ONCE)))
    return last
