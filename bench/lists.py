"""What loading one run and listing a page of them cost as a store grows from a thousand runs to a million: flat curves.

A tenth of the runs is of each of four waiting kinds, the others have ended; each page has fifty rows. Loading reads a run's
events and folds them with nothing remembered, as a server does that has just started.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import disk
from bench.engines.charter import gate_on
from bench.runs import BEGAN_MS, DONE, MS_APART, PEOPLE, SIGNAL, TENANT, WAITING, Kind, fill, pin, record
from charter.gate.loading import States
from charter.model.times import rfc3339
from charter.store.port import Filter, Page
from charter.store.sqlite import SqliteStore

SIZES = (1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES = SIZES[:3]
WAITING_SHARE = 10
"""One run in so many is of each waiting kind."""


@dataclass(frozen=True, slots=True)
class Look:
    """A list that somebody asks for; ``where`` is given the middle of the time in which the runs began."""

    name: str
    where: Callable[[str], Filter]


LOOKS = (
    Look("all", lambda _: Filter()),
    Look("waiting", lambda _: Filter(status="waiting")),
    Look("none such", lambda _: Filter(status="paused")),
    Look("a template", lambda _: Filter(template=PEOPLE.name)),
    Look("a version", lambda _: Filter(template=f"{SIGNAL.name}@1")),
    Look("an owner", lambda _: Filter(owner="ann")),
    Look("blocked on approvals", lambda _: Filter(blocked_on="approval")),
    Look("blocked on reviews, of which there are none", lambda _: Filter(blocked_on="review")),
    Look("blocked on nobody", lambda _: Filter(blocked_on="approval:nobody")),
    Look("older than", lambda middle: Filter(started_before=middle)),
    Look("newer than", lambda middle: Filter(started_after=middle)),
    Look("waiting, a template", lambda _: Filter(status="waiting", template=PEOPLE.name)),
    Look("waiting, a template, older", lambda m: Filter(status="waiting", template=PEOPLE.name, started_before=m)),
    Look("a template of which none waits", lambda _: Filter(status="waiting", template=DONE.name)),
    Look("waiting on approvals", lambda _: Filter(status="waiting", blocked_on="approval")),
    Look("running, on approvals", lambda _: Filter(status="running", blocked_on="approval")),
    Look("a template, on another's block", lambda _: Filter(template=SIGNAL.name, blocked_on="approval")),
    Look("an owner's completed", lambda _: Filter(owner="ann", status="completed")),
    Look("an owner's paused", lambda _: Filter(owner="ann", status="paused")),
    Look("an owner's of a template", lambda _: Filter(owner="ann", template=PEOPLE.name)),
)


async def run(sizes: Sequence[int], rounds: int, say: Any) -> dict[str, Any]:
    """``{"points": [{"runs", "load_us", "lists": {look: ms}}], "x_load", "x_list", "worst", "disk"}``: medians.

    ``x_load`` and ``x_list`` are the last point over the first; of lists the one that grows most, which is ``worst``.
    """
    kinds = await record(DONE, *WAITING)
    points: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name:
        store = SqliteStore(Path(name) / "runs.db")
        await store.open()
        try:
            await pin(store, kinds)
            there = 0
            for size in sizes:
                await fill(store, (_kind(kinds, number).copy(number) for number in range(there, size)))
                there = size
                points.append({"runs": size, **await _measure(store, kinds, size, rounds)})
                say(f"lists: {size:,} runs: {points[-1]['load_us']:.0f} µs to load one")
        finally:
            await store.close()
    first, last = points[0], points[-1]
    growth = {look: last["lists"][look] / first["lists"][look] for look in first["lists"]}
    worst = max(growth, key=lambda look: growth[look])
    x_load = last["load_us"] / first["load_us"]
    return {"points": points, "x_load": x_load, "x_list": growth[worst], "worst": worst, "disk": disk.described()}


def _kind(kinds: Sequence[Kind], number: int) -> Kind:
    place = number % WAITING_SHARE
    return kinds[place] if place < len(kinds) else kinds[0]


async def _measure(store: SqliteStore, kinds: Sequence[Kind], size: int, rounds: int) -> dict[str, Any]:
    middle = rfc3339(BEGAN_MS + size // 2 * MS_APART)
    lists = {}
    for look in LOOKS:
        lists[look.name] = await _median_ms(rounds, partial(store.workflows, TENANT, look.where(middle), Page(50)))
    sealer, chance = gate_on(store).parts.sealer, random.Random(size)
    ids = [kinds[1].copy(1).stream[:-12] + f"{number:012x}" for number in range(1, size, WAITING_SHARE)]

    async def load() -> None:
        states = States(store, sealer, capacity=1, snapshot_every=200)
        assert await states.fresh(TENANT, chance.choice(ids)) is not None

    return {"lists": lists, "load_us": 1e3 * await _median_ms(10 * rounds, load)}


async def _median_ms(rounds: int, look: Callable[[], Awaitable[Any]]) -> float:
    await look()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        await look()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e3
