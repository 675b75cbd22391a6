"""The embedded engine passes the suite that every engine must pass."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from charter.engine.embedded import EmbeddedEngine
from charter.engine.port import Driver
from charter.model.effect import Effect, EffectOutcome
from tests.engine.contract import StepsContract, TimesContract
from tests.engine.contract_processes import ProcessesContract
from tests.engine.driven import CHAIN, Writes, action
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import ANN, template

pytestmark = pytest.mark.anyio


@pytest.fixture
def driver() -> Driver:
    return EmbeddedEngine


class TestSteps(StepsContract):
    pass


class TestTimes(TimesContract):
    pass


class TestProcesses(ProcessesContract):
    pass


async def test_a_mistake_of_charters_own_is_logged_without_its_words(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await opened(templates=(CHAIN,))
    run = await desk.start("chain", input={"what": "acme"})

    words = "bad argument: hunter2"

    async def broken(*_: Any) -> int:
        raise ValueError(words)

    monkeypatch.setattr(desk.store, "version", broken)
    with caplog.at_level(logging.DEBUG):
        await desk.engine.settle()
    assert f"workflow {run.workflow_id} could not be driven: ValueError" in caplog.text
    assert "embedded.py" in caplog.text, "the place"
    assert "hunter2" not in caplog.text


async def test_how_a_step_ended_and_the_intent_of_the_next_are_one_durable_write(
    opened: Open, upstream: Counting
) -> None:
    steps = (action(f"s{n}", "read", what=f"{n}") for n in range(3))
    desk = await opened(templates=(template("three", *steps),))
    run = await desk.start("three")
    writes = Writes(desk, run.workflow_id)
    await desk.engine.settle()
    begin = ["POLICY_DECISION", "TOOL_INVOKE"]
    ended = ["TOOL_RESULT", "WORKFLOW_STEP"]
    assert writes.seen == [begin, *([[*ended, "WORKFLOW_STEP", *begin]] * 2), [*ended, "WORKFLOW_COMPLETED"]]
    assert len(upstream.calls()) == 3
    await desk.check_record()


async def test_a_run_begins_its_first_call_in_the_commit_of_its_start_where_an_engine_runs(
    opened: Open, upstream: Counting
) -> None:
    steps = [action(f"s{n}", "read", {"needs": []}, what=f"{n}") for n in range(3)]
    wide = template("wide", *steps, action("last", "read", {"needs": ["s0", "s1", "s2"]}, what="last"))
    desk = await opened(templates=(wide,))
    writes = Writes(desk)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.engine.run)
        with anyio.fail_after(60):
            while desk.gate.driving.carrier is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            runs = [await desk.start("wide") for _ in range(8)]
            for run in runs:
                while (await desk.queries.workflow(ANN, run.workflow_id)).status != "completed":  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    starts = [types for types in writes.seen if types[0] == "WORKFLOW_STARTED"]
    # The first start of a template is what puts it into the store; its calls are begun by the engine afterwards.
    assert [types.count("TOOL_INVOKE") for types in starts] == [0] + [3] * 7
    assert len(upstream.calls()) == 8 * 4
    assert await desk.store.next_wake() is None
    await desk.check_record()


async def test_a_time_of_a_run_is_kept_while_a_call_of_it_goes_on(opened: Open, upstream: Counting) -> None:
    """Side by side: a call that lasts, and a wait whose time comes meanwhile with a call after it."""
    go_on = asyncio.Event()
    both = template(
        "both",
        action("long", "read", {"needs": []}, what="long"),
        {"id": "w", "type": "wait", "seconds": 60, "needs": []},
        action("then", "read", {"needs": ["w"]}, what="then"),
    )
    desk = await opened(templates=(both,))
    run_tool = desk.gate.parts.runner.run

    async def slow(effect: Effect, **more: Any) -> EffectOutcome:
        if effect.step_id == "long":
            await go_on.wait()
        return await run_tool(effect, **more)

    desk.gate.parts.runner.run = slow  # type: ignore[method-assign]
    run = await desk.start("both")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.engine.run)
        with anyio.fail_after(60):
            while "TOOL_INVOKE" not in await desk.types(run.workflow_id):  # noqa: ASYNC110
                await anyio.sleep(0.01)
            desk.clock.wait(61)
            while [call["what"] for call in upstream.calls()] != ["then"]:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            go_on.set()
            while (await desk.queries.workflow(ANN, run.workflow_id)).status != "completed":  # noqa: ASYNC110
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    await desk.check_record()
