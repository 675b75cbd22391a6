"""A caller who goes away, at every single point where the gate waits: nothing is lost, nothing is left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest

from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.tool import Quarantine, ToolManifest
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import Desk, Work

pytestmark = pytest.mark.anyio

MOST_WAITS = 200


class Until:
    """Awaits ``work`` and calls ``leave`` just before it waits for the ``stop``-th time; counts how often it waited."""

    def __init__(self, work: Coroutine[Any, Any, Any], stop: int, leave: Callable[[], object]) -> None:
        self.work, self.stop, self.leave, self.waits = work, stop, leave, 0

    def __await__(self) -> Generator[Any, Any, Any]:
        inner, send, failure = self.work.__await__(), None, None
        while True:
            try:
                waited_for = inner.send(send) if failure is None else inner.throw(failure)
            except StopIteration as done:
                return done.value
            failure = None
            self.waits += 1
            if self.waits == self.stop:
                self.leave()
            try:
                send = yield waited_for
            except BaseException as error:
                failure = error


async def by_task(work: Coroutine[Any, Any, Any], stop: int) -> bool:
    """Cancel the task, as asyncio does; True when the work waited so often."""

    async def body() -> Until:
        task = asyncio.current_task()
        assert task is not None
        until = Until(work, stop, task.cancel)
        tried.append(until)
        await until
        return until

    tried: list[Until] = []
    await asyncio.gather(asyncio.create_task(body()), return_exceptions=True)
    return tried[0].waits >= stop


async def by_scope(work: Coroutine[Any, Any, Any], stop: int) -> bool:
    """Cancel the scope, as the MCP SDK does when a client cancels or hangs up."""
    with anyio.CancelScope() as scope:
        until = Until(work, stop, scope.cancel)
        await until
    return until.waits >= stop


WAYS = pytest.mark.parametrize("way", [by_task, by_scope])


async def endings(desk: Desk, workflow_id: str) -> dict[str, str]:
    """Each effect's key and how it ended; ``running`` when nobody will ever tell."""
    ended: dict[str, str] = {}
    for event in await desk.events(workflow_id):
        data = event.data
        if event.type == "TOOL_INVOKE":
            ended[data["idempotency_key"]] = "running"
        elif event.type == "TOOL_RESULT":
            ended[data["effect_id"]] = data["status"]
        elif event.type == "EFFECT_IN_DOUBT":
            ended[data["effect_id"]] = "in_doubt"
    return ended


@pytest.mark.guarantee("G5")
@WAYS
async def test_a_call_whose_caller_leaves_at_any_wait_has_an_end_on_record(
    desk: Desk, upstream: Counting, way: Any
) -> None:
    ended: dict[str, str] = {}
    for stop in range(1, MOST_WAITS):
        work = await desk.session()
        proposal_id = await work.approved("counter__charge", account="acme", cents=stop)
        left = await way(work.run(proposal_id), stop)
        ended |= await endings(desk, work.workflow_id)
        if not left:
            break
    else:
        pytest.fail("the call never ran through")
    assert not await desk.effects("running")
    await (await desk.session()).invoke("counter__read", what="x")  # whatever was sent before has arrived
    counts = upstream.counts("charge")
    assert set(ended.values()) >= {"failed", "in_doubt", "succeeded"}, "every kind of moment was met"
    for key, end in ended.items():
        assert counts[key] <= (0 if end == "failed" else 1), end
        assert counts[key] == 1 or end != "succeeded"
    assert counts.keys() <= ended.keys(), "what ran was on record before"
    await desk.check_record()


@pytest.mark.guarantee("G5")
@WAYS
async def test_who_leaves_while_the_intent_is_written_leaves_a_call_that_was_never_sent(
    opened: Open, upstream: Counting, way: Any
) -> None:
    """Not in doubt: nobody has to find out what became of something that Charter knows it did not send."""
    desk = await opened()
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    append, leaving = desk.store.append, asyncio.Event()

    async def slowly(batch: Any) -> Any:
        if any(event.type == "TOOL_INVOKE" for event in batch.events):
            leaving.set()
            await asyncio.sleep(0.05)
        return await append(batch)

    desk.store.append = slowly  # type: ignore[method-assign]
    if way is by_scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work.run, proposal_id)
            await leaving.wait()
            tasks.cancel_scope.cancel()
    else:
        task = asyncio.create_task(work.run(proposal_id))
        await leaving.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    result = await desk.last(work.workflow_id, "TOOL_RESULT")
    assert (result["status"], result["error_code"]) == ("failed", "cancelled")
    assert upstream.calls() == []


@pytest.mark.guarantee("G5")
async def test_who_leaves_during_the_call_leaves_a_doubt_and_a_read_leaves_none(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    desk = await opened(tools=Patient(tools[0]))
    work = await desk.session()
    proposal_id = await work.approved("counter__slow", seconds=60)
    task = asyncio.create_task(work.run(proposal_id))
    while not upstream.calls():  # noqa: ASYNC110 - it waits for another process
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    doubt = await desk.last(work.workflow_id, "EFFECT_IN_DOUBT")
    assert [row.effect_id for row in await desk.effects("in_doubt")] == [doubt["effect_id"]]
    blockers = (await work.context()).blocked_by
    assert "effect_in_doubt" in {blocker.what for blocker in blockers}


@pytest.mark.guarantee("G6")
@WAYS
async def test_any_other_command_is_whole_or_not_there(desk: Desk, way: Any) -> None:
    """Starting, proposing, asking, deciding, completing: cancelled at each wait, the record holds together and goes on."""
    for stop in range(1, MOST_WAITS):
        work = await desk.session()
        proposal = await work.propose("counter__charge", account="acme", cents=stop)
        ask = cmd.RequestApproval(**work.ids, proposal_id=proposal.proposal_id)
        waited = [
            await way(desk.start(idempotency_key=f"k{stop}"), stop),
            await way(work.propose("counter__charge", account="other", cents=stop), stop),
            await way(desk.gate.handle(work.by, ask), stop),
        ]
        asked = await work.ask(proposal.proposal_id)  # whatever became of it: asked once, and only once
        waited.append(await way(desk.decide(asked.approval_id), stop))
        types = await desk.types(work.workflow_id)
        assert types.count("APPROVAL_REQUESTED") == 1
        assert types.count("APPROVAL_DECISION") <= 1
        waited.append(await way(work.complete({"n": stop}), stop))
        again = await desk.start(idempotency_key=f"k{stop}")
        assert again.workflow_id == (await desk.start(idempotency_key=f"k{stop}")).workflow_id
        if not any(waited):
            break
    await desk.check_record()


class Patient:
    """The same tools, whose calls may take their time: only the test ends them."""

    def __init__(self, tools: Governed) -> None:
        self._tools = tools

    def find(self, name: str) -> ToolManifest | None:
        tool = self._tools.find(name)
        return tool and tool.model_copy(update={"timeout_seconds": 120})

    def quarantine(self, name: str) -> Quarantine | None:
        return self._tools.quarantine(name)

    def all(self) -> tuple[ToolManifest, ...]:
        return self._tools.all()


class Telling:
    """The same runner, which says when an answer has come."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self.answered = runner, asyncio.Event()

    async def run(self, effect: Effect, **more: Any) -> EffectOutcome:
        outcome = await self._runner.run(effect, **more)
        self.answered.set()
        return outcome

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None:
        return await self._runner.preview(manifest, arguments)


class Breaking:
    """A runner that breaks its promise never to raise."""

    async def run(self, effect: Any, **_: Any) -> EffectOutcome:
        raise RuntimeError("a bug")

    async def preview(self, *_: Any) -> None:
        return None


@pytest.mark.guarantee("G5")
async def test_a_runner_that_breaks_leaves_a_doubt_and_no_call_that_runs_for_ever(opened: Open) -> None:
    desk = await opened(runner=Breaking())
    work = await desk.session()
    outcome = await work.run(await work.approved("counter__charge", account="acme", cents=5))
    assert outcome.status == "in_doubt"
    assert "a bug" not in str(outcome)
    assert not await desk.effects("running")


@pytest.mark.guarantee("G5")
async def test_an_outcome_is_on_record_even_if_the_caller_leaves_while_the_run_is_busy(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    """The outcome waits for its turn behind another command of the same run; the caller does not wait for it."""
    runner = Telling(tools[1])
    desk = await opened(runner=runner, tools=Patient(tools[0]))
    work: Work = await desk.session()
    proposal_id = await work.approved("counter__slow", seconds=0.2)
    task = asyncio.create_task(work.run(proposal_id))
    while not upstream.calls():  # noqa: ASYNC110 - it waits for another process
        await asyncio.sleep(0.01)
    async with desk.gate._lock("default", work.workflow_id):
        await runner.answered.wait()
        await anyio.wait_all_tasks_blocked()  # the answer waits for the lock
        task.cancel()
        await asyncio.sleep(0.05)
    await asyncio.gather(task, return_exceptions=True)
    assert (await desk.last(work.workflow_id, "TOOL_RESULT"))["status"] == "succeeded"
