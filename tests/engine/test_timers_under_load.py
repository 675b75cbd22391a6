"""Timers on a busy server. Counted in turns of the event loop and in commits, since times depend on the machine."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from charter.engine import embedded
from charter.engine.alarms import Alarms
from charter.engine.embedded import BEGUN_A_TURN, EmbeddedEngine
from charter.engine.turns import Turns
from charter.model import commands as cmd
from charter.model.times import rfc3339, unix_ms_of
from charter.store.port import Appended, Batch, Due
from tests.gate.conftest import Open
from tests.guarantees.world import Clock, template

pytestmark = pytest.mark.anyio

NAP = template("nap", {"id": "w", "type": "wait", "seconds": 1})
NAPS = template("naps", *({"id": f"w{n}", "type": "wait", "seconds": 1} for n in range(2)))
TURN_SECONDS = 0.004
"""What each turn takes of a loop that is kept busy: more than the grain of its timers."""


class Turning:
    """Counts the turns of the event loop from now on, each of which may be ``busy`` for so many seconds."""

    def __init__(self, busy: float = 0) -> None:
        self.now, self._busy = 0, busy
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self.now += 1
        time.sleep(self._busy)
        self._handle = asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._handle.cancel()


@contextmanager
def turning(busy: float = 0) -> Iterator[Turning]:
    turns = Turning(busy)
    try:
        yield turns
    finally:
        turns.stop()


class Ticking(Clock):
    """It goes by itself."""

    def __call__(self) -> int:
        return self.ms + time.monotonic_ns() // 1_000_000


class TestWhileTheLoopIsBusy:
    @pytest.fixture
    def clock(self) -> Clock:
        return Ticking()

    async def test_a_timer_is_decided_and_handed_to_the_store_in_the_turn_after_its_time(self, opened: Open) -> None:
        desk, runs = await opened(templates=(NAP,)), 5
        due: dict[str, int] = {}
        decided: list[int] = []
        append = desk.store.append

        def seen(batch: Batch) -> Awaitable[Appended]:
            appending = append(batch)
            if batch.stream in due and batch.events[-1].type == "WORKFLOW_COMPLETED":
                assert isinstance(appending, asyncio.Future), "it is on its way to the disk in the same turn"
                decided.append(turns.now - due[batch.stream])
            return appending

        desk.store.append = seen  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.engine.run)
            with turning(TURN_SECONDS) as turns, anyio.fail_after(60):
                for _ in range(runs):
                    run = await desk.start("nap")
                    row = await desk.store.workflow("default", run.workflow_id)
                    assert row is not None
                    assert row.wake_at is not None
                    while desk.clock() < unix_ms_of(row.wake_at):  # noqa: ASYNC110
                        await asyncio.sleep(0)
                    due[run.workflow_id] = turns.now
                while len(decided) < runs:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            tasks.cancel_scope.cancel()
        assert statistics.median(decided) <= 2, "one to begin it, one to decide"


@pytest.mark.guarantee("G6")
async def test_of_a_burst_a_part_begins_in_each_turn_so_that_callers_go_on(opened: Open) -> None:
    desk, runs = await opened(templates=(NAP,)), 15 * BEGUN_A_TURN
    waiting = [(await desk.start("nap")).workflow_id for _ in range(runs)]
    begun = Counter[int]()
    handle = desk.gate.handle

    async def seen(principal: Any, command: Any, *more: Any) -> Any:
        if isinstance(command, cmd.AdvanceWorkflow):
            begun[turns.now] += 1
        return await handle(principal, command, *more)

    desk.gate.handle = seen  # type: ignore[method-assign, assignment]

    desk.clock.wait(2)
    async with anyio.create_task_group() as tasks:
        with turning() as turns, anyio.fail_after(60):
            tasks.start_soon(desk.engine.run)
            for workflow_id in waiting:
                while (await desk.types(workflow_id))[-1] != "WORKFLOW_COMPLETED":  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert len(begun) >= runs // BEGUN_A_TURN
    assert max(begun.values()) <= BEGUN_A_TURN
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_an_alarm_for_what_another_process_has_done_meanwhile_does_not_hold_up_what_comes_next(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_SECONDS", 1e6)  # it hears of no other process by itself
    monkeypatch.setattr(embedded, "STUCK_SECONDS", 1e6)
    one, other = await opened(templates=(NAPS,)), await opened(templates=(NAPS,))
    run = await one.start("naps")
    one.clock.wait(0.8)
    rung = asyncio.Event()
    engine = one.engine
    assert isinstance(engine, EmbeddedEngine)
    ring = engine._ring

    def heard(due: Due) -> None:
        ring(due)
        rung.set()

    monkeypatch.setattr(engine._alarms, "_ring", heard)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        with anyio.fail_after(60):
            while not engine._alarms:  # noqa: ASYNC110
                await asyncio.sleep(0)
            one.clock.wait(0.5)
            await other.engine.settle()
            await rung.wait()
            one.clock.wait(2)
            while (await one.types(run.workflow_id))[-1] != "WORKFLOW_COMPLETED":
                await one.start("naps")  # of which it hears: it looks what is due
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    await one.check_record()


class TestAlarms:
    @pytest.fixture
    def rung(self) -> list[Due]:
        return []

    @pytest.fixture
    def alarms(self, clock: Clock, rung: list[Due]) -> Alarms:
        return Alarms(lambda: clock.ms, rung.append)

    async def test_each_rings_once_at_its_time_by_the_clock_that_counts(
        self, alarms: Alarms, clock: Clock, rung: list[Due]
    ) -> None:
        first, second = (Due("t", name, rfc3339(clock.ms + ms)) for name, ms in (("wf_1", 10), ("wf_2", 20)))
        alarms.set([second, first])
        with anyio.fail_after(60):
            await asyncio.sleep(0.05)
            assert rung == [], "the loop's time has come, and the clock stands"
            clock.ms += 10
            while not rung:  # noqa: ASYNC110
                await asyncio.sleep(0)
            clock.ms += 10
            while len(rung) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert rung == [first, second]
        assert len(alarms) == 0

    async def test_what_is_set_anew_replaces_what_was(self, alarms: Alarms, clock: Clock, rung: list[Due]) -> None:
        def due(name: str, ms: int) -> Due:
            return Due("t", name, rfc3339(clock.ms + ms))

        alarms.set([due("gone", 5), due("sooner", 60_000), due("same", 10), due("later", 5)])
        alarms.set([due("sooner", 8), due("same", 10), due("later", 60_000)])
        assert len(alarms) == 3
        clock.ms += 1_000
        with anyio.fail_after(60):
            while len(rung) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert [each.workflow_id for each in rung] == ["sooner", "same"]
        alarms.clear()
        assert len(alarms) == 0


async def test_who_gives_up_waiting_for_a_turn_takes_nobody_s_place() -> None:
    turns, entered = Turns(2), list[int]()

    async def one(number: int) -> None:
        await turns.enter()
        entered.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(7)]
    await asyncio.sleep(0)
    assert entered == [0, 1]
    tasks[2].cancel()
    tasks[4].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert entered == [0, 1, 3, 5]
    await asyncio.gather(*tasks, return_exceptions=True)
    assert entered == [0, 1, 3, 5, 6]
