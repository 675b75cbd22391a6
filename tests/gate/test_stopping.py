"""A gate that drains: nothing new, what runs is waited for, and its outcome is on record."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from charter.errors import Unavailable
from charter.model.effect import Effect, EffectOutcome
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import template

pytestmark = pytest.mark.anyio

READ = template("look", {"id": "look", "type": "action", "tool": "counter__read", "arguments": {"what": "a"}})


class Held:
    """A runner whose calls wait until they are let go."""

    def __init__(self) -> None:
        self.begun, self.go = anyio.Event(), anyio.Event()

    async def run(self, effect: Effect, **_: Any) -> EffectOutcome:
        self.begun.set()
        await self.go.wait()
        return EffectOutcome(status="succeeded", content=({"type": "text", "text": "done"},))


async def test_a_draining_gate_refuses_what_is_new_and_waits_for_what_runs(opened: Open) -> None:
    runner = Held()
    desk = await opened(runner=runner)
    work = await desk.session()
    outcomes: list[Any] = []

    async def call() -> None:
        outcomes.append(await work.invoke("counter__read", what="x"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await runner.begun.wait()
        before = len(await desk.events(work.workflow_id))
        assert await desk.gate.drain(0) == 1  # no time: the call goes on
        for attempt in (desk.session(), work.invoke("counter__read", what="y"), work.complete()):
            with pytest.raises(Unavailable) as refused:
                await attempt
            assert refused.value.error_code == "stopping"
        await desk.engine.settle()  # it begins nothing either
        assert len(await desk.events(work.workflow_id)) == before

        left: list[int] = []

        async def drain() -> None:
            left.append(await desk.gate.drain(60))

        tasks.start_soon(drain)
        runner.go.set()
    assert (left, [outcome.status for outcome in outcomes]) == ([0], ["succeeded"])
    assert (await desk.types(work.workflow_id))[-1] == "TOOL_RESULT"


async def test_a_step_that_is_due_is_left_to_the_next_process(opened: Open, upstream: Counting) -> None:
    stopping = await opened(templates=(READ,))
    run = await stopping.start("look")
    assert await stopping.gate.drain(60) == 0
    await stopping.engine.settle()
    assert upstream.calls() == []
    restarted = await opened(templates=(READ,))
    await restarted.engine.settle()
    assert (await restarted.types(run.workflow_id))[-1] == "WORKFLOW_COMPLETED"
    assert len(upstream.calls()) == 1
