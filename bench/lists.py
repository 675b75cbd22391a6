"""What loading one run and listing a page of them cost as a store grows from a thousand runs to a million: flat curves.

A tenth of the runs is of each of four waiting kinds, the others have ended; each page has fifty rows. Loading reads a run's
events and folds them with nothing remembered, as a server does that has just started. One store grows and is copied at each
size; then all of them are asked in turns, so that whatever else the machine does falls on all sizes.
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
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

    ``x_load`` and ``x_list`` are the last size over the first within a round; of lists the one that grows most, ``worst``.
    """
    kinds = await record(DONE, *WAITING)
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name:
        async with AsyncExitStack() as stack:
            stores = []
            for path in await _grown(Path(name), kinds, sizes, say):
                stores.append(store := SqliteStore(path))
                await store.open()
                stack.push_async_callback(store.close)
            lists = {look.name: await _listed(stores, sizes, look, rounds) for look in LOOKS}
            load = await _loaded(stores, sizes, kinds, 10 * rounds)
    growth = {look: _last_over_first(taken) for look, taken in lists.items()}
    worst = max(growth, key=lambda look: growth[look])
    points = [
        {
            "runs": size,
            "load_us": 1e3 * statistics.median(load[place]),
            "lists": {look: statistics.median(taken[place]) for look, taken in lists.items()},
        }
        for place, size in enumerate(sizes)
    ]
    x_load = _last_over_first(load)
    return {"points": points, "x_load": x_load, "x_list": growth[worst], "worst": worst, "disk": disk.described()}


async def _grown(folder: Path, kinds: Sequence[Kind], sizes: Sequence[int], say: Any) -> list[Path]:
    """The files of stores of these sizes."""
    growing, files, there = folder / "growing.db", [], 0
    for size in sizes:
        store = SqliteStore(growing)
        await store.open()
        try:
            if not there:
                await pin(store, kinds)
            await fill(store, (_kind(kinds, number).copy(number) for number in range(there, size)))
        finally:
            await store.close()
        there = size
        files.append(growing if size == sizes[-1] else Path(shutil.copyfile(growing, folder / f"{size}.db")))
        say(f"lists: {size:,} runs are there, in {files[-1].stat().st_size / 1e6:,.0f} MB")
    return files


def _kind(kinds: Sequence[Kind], number: int) -> Kind:
    place = number % WAITING_SHARE
    return kinds[place] if place < len(kinds) else kinds[0]


async def _listed(stores: Sequence[SqliteStore], sizes: Sequence[int], look: Look, rounds: int) -> list[list[float]]:
    filters = [look.where(rfc3339(BEGAN_MS + size // 2 * MS_APART)) for size in sizes]
    asked = [partial(store.workflows, TENANT, where, Page(50)) for store, where in zip(stores, filters, strict=True)]
    return await _in_turns(asked, rounds)


async def _loaded(
    stores: Sequence[SqliteStore], sizes: Sequence[int], kinds: Sequence[Kind], rounds: int
) -> list[list[float]]:
    sealer, chance, any_id = gate_on(stores[0]).parts.sealer, random.Random(sizes[-1]), kinds[1].copy(1).stream[:-12]

    async def load(store: SqliteStore, size: int) -> None:
        number = chance.randrange(1, size, WAITING_SHARE)
        states = States(store, sealer, capacity=1, snapshot_every=200)
        assert await states.fresh(TENANT, f"{any_id}{number:012x}") is not None

    return await _in_turns([partial(load, store, size) for store, size in zip(stores, sizes, strict=True)], rounds)


async def _in_turns(asked: Sequence[Callable[[], Awaitable[Any]]], rounds: int) -> list[list[float]]:
    """What each of them took in each round, in milliseconds; another one begins each round."""
    taken: list[list[float]] = [[] for _ in asked]
    for look in asked:
        await look()
    for number in range(rounds):
        for place in range(len(asked)):
            index = (number + place) % len(asked)
            began = time.perf_counter()
            await asked[index]()
            taken[index].append((time.perf_counter() - began) * 1e3)
    return taken


def _last_over_first(taken: Sequence[Sequence[float]]) -> float:
    return statistics.median(last / first for first, last in zip(taken[0], taken[-1], strict=True))
