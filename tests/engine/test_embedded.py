"""The embedded engine: steps that run by themselves, waits that end, and a restart that loses none of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from charter.errors import Unavailable
from charter.gate import Gate
from charter.model.template import Template
from charter.store.port import Filter, Page
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.gate.test_effects import Changed
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import ANN, BOB, DAY, Desk, Work, template

pytestmark = pytest.mark.anyio


def action(id: str, tool: str, more: dict[str, Any] | None = None, /, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "action", "tool": f"counter__{tool}", "arguments": arguments, **(more or {})}


def question(id: str = "ask", seconds: int = DAY, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "approval", "question": "Go on?", "expires_after_seconds": seconds, **more}


CHAIN = template(
    "chain",
    action("look", "read", what="{{ trigger.what }}"),
    action("keep", "write_idempotent", what="{{ trigger.what }}", value="{{ steps.look.output.result }}"),
    question(),
    action("pay", "charge", account="{{ trigger.what }}", cents=7),
    output="{{ steps.pay.output.result }}",
)


async def pending(desk: Desk) -> list[Any]:
    return (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]


async def agree_to_everything(desk: Desk) -> None:
    """People say yes until nobody is asked any more."""
    await desk.engine.settle()
    while rows := await pending(desk):
        for row in rows:
            await desk.decide(row.approval_id)
        await desk.engine.settle()


async def test_steps_run_one_after_another_with_what_came_before(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(CHAIN,))
    run = await desk.start("chain", input={"what": "acme"})
    await agree_to_everything(desk)
    context = await desk.queries.workflow(ANN, run.workflow_id)
    assert (context.status, context.output) == ("completed", "charged acme 7")
    assert set(context.steps.values()) == {"completed"}
    called = [(call["tool"], call.get("value")) for call in upstream.calls()]
    assert called == [("read", None), ("write_idempotent", "this is acme"), ("charge", None)]
    await desk.check_record()


async def test_a_step_s_call_passes_the_same_policy_and_waits_for_people(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(template("pay", action("pay", "charge", account="acme", cents=7)),))
    run = await desk.start("pay")
    await desk.engine.settle()
    context = await desk.queries.workflow(ANN, run.workflow_id)
    assert (context.status, context.approval_required, upstream.calls()) == ("waiting", True, [])
    (row,) = await pending(desk)
    assert row.requested_by == "charter:engine"
    await desk.decide(row.approval_id, "reject", comment="no")
    await desk.engine.settle()
    assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_REJECTED"
    assert upstream.calls() == []
    await desk.check_record()


FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown tool": (action("go", "nothing"), "unknown_tool"),
    "arguments that the schema refuses": (action("go", "read", what=7), "invalid_arguments"),
    "an expression without a value": (action("go", "read", what="{{ trigger.nothing }}"), "expression_error"),
    "a tool that answers with an error": (action("go", "refuse"), "tool_error"),
}


@pytest.mark.parametrize("why", FAILING)
@pytest.mark.parametrize("on_failure", ["fail_workflow", "skip"])
async def test_a_step_that_fails_ends_the_run_or_is_skipped_as_the_template_says(
    opened: Open, upstream: Counting, why: str, on_failure: str
) -> None:
    step, code = FAILING[why]
    desk = await opened(
        templates=(template("t", {**step, "on_failure": on_failure}, action("then", "read", what="x")),)
    )
    run = await desk.start("t")
    await desk.engine.settle()
    ended = (await desk.types(run.workflow_id))[-1]
    steps = (await desk.queries.workflow(ANN, run.workflow_id)).steps
    if on_failure == "skip":
        assert (ended, steps) == ("WORKFLOW_COMPLETED", {"go": "skipped", "then": "completed"})
    else:
        assert (ended, steps) == ("WORKFLOW_FAILED", {"go": "failed", "then": "pending"})
        assert (await desk.last(run.workflow_id, "WORKFLOW_FAILED"))["code"] == code
    await desk.check_record()


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G6")
async def test_waits_end_when_their_time_has_come_by_the_clock(opened: Open, upstream: Counting) -> None:
    patient = template("patient", question(seconds=3600))
    work = template("work", {"id": "work", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": 7200})
    desk = await opened(templates=(patient, work))
    asked, granted = await desk.start("patient"), await desk.start("work")
    await desk.engine.settle()
    desk.clock.wait(3599)
    await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, asked.workflow_id)).status == "waiting"
    desk.clock.wait(2)
    await desk.engine.settle()
    assert (await desk.types(asked.workflow_id))[-3:] == ["APPROVAL_CLOSED", "WORKFLOW_STEP", "WORKFLOW_REJECTED"]
    desk.clock.wait(3600)
    await desk.engine.settle()
    assert (await desk.last(granted.workflow_id, "WORKFLOW_FAILED"))["code"] == "step_expired"
    assert await desk.store.next_wake() is None
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_another_process_goes_on_where_one_stopped(opened: Open, upstream: Counting) -> None:
    """At every wait of a run, all that is known to the process goes away with it."""
    run: Any = None
    for _ in range(12):
        desk = await opened(templates=(CHAIN,))  # nothing in memory
        run = run or await desk.start("chain", input={"what": "acme"})
        await desk.engine.settle()
        rows = await pending(desk)
        if not rows:
            break
        await desk.decide(rows[0].approval_id)
    assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
    assert [call["tool"] for call in upstream.calls()] == ["read", "write_idempotent", "charge"]
    await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_two_engines_on_one_store_run_each_step_once(opened: Open, upstream: Counting) -> None:
    steps = [action(f"s{n}", "read", {"needs": []}, what=f"{n}") for n in range(4)]
    wide = template("wide", *steps)
    one, other = await opened(templates=(wide,)), await opened(templates=(wide,))
    runs = [await one.start("wide") for _ in range(4)]
    await asyncio.gather(one.engine.settle(), other.engine.settle())
    await asyncio.gather(one.engine.settle(), other.engine.settle())
    for run in runs:
        assert (await one.queries.workflow(ANN, run.workflow_id)).status == "completed"
    assert len(upstream.calls()) == len(upstream.counts("read")) == 16
    await one.check_record()


async def test_a_cancelled_run_s_steps_do_not_run(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(CHAIN,))
    run = await desk.start("chain", input={"what": "acme"})
    await Work(desk, run.workflow_id, "").cancel()
    await desk.engine.settle()
    assert upstream.calls() == []
    assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_CANCELLED"


async def test_the_running_engine_hears_of_what_this_and_another_process_did(opened: Open, upstream: Counting) -> None:
    """Driven by commits and due times; the test only waits until it is done."""
    desk, cli = await opened(templates=(CHAIN,)), await opened(templates=(CHAIN,))
    driving = asyncio.create_task(desk.engine.run())
    try:
        run = await cli.start("chain", input={"what": "acme"})
        async with asyncio.timeout(30):
            while (await cli.queries.workflow(ANN, run.workflow_id)).status != "completed":
                for row in await pending(cli):
                    await cli.decide(row.approval_id, by=BOB)
                await asyncio.sleep(0.02)
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
    assert len(upstream.calls()) == 3
    await desk.check_record()


class Sick:
    """A store whose list of what is due does not answer the first time."""

    def __init__(self, gate: Gate) -> None:
        self._due, self.failures = gate.parts.store.due, 1
        gate.parts.store.due = self.due  # type: ignore[method-assign]

    async def due(self, now: str, limit: int) -> Any:
        if self.failures:
            self.failures -= 1
            raise Unavailable("busy")
        return await self._due(now, limit)


async def test_the_engine_outlives_a_store_that_does_not_answer(opened: Open, upstream: Counting) -> None:
    one: Template = template("one", action("look", "read", what="x"))
    desk = await opened(templates=(one,))
    run = await desk.start("one")
    sick = Sick(desk.gate)
    driving = asyncio.create_task(desk.engine.run())
    async with asyncio.timeout(30):
        while (await desk.queries.workflow(ANN, run.workflow_id)).status != "completed":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    assert sick.failures == 0


@pytest.mark.guarantee("G6")
async def test_what_people_allowed_a_step_that_was_skipped_holds_nothing_up(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    """Approved, then denied by what changed meanwhile and skipped: the approval is over with the step."""
    pay = action("pay", "charge", {"on_failure": "skip"}, account="acme", cents=7)
    careful = template("careful", pay, question(seconds=3 * DAY), action("look", "read", what="x"))
    desk = await opened(templates=(careful,))
    run = await desk.start("careful")
    await desk.engine.settle()
    (row,) = await pending(desk)
    await desk.decide(row.approval_id)
    changed = Changed(tools[0], "counter__charge", quarantined=True)
    later = await opened(templates=(careful,), tools=changed)
    await later.engine.settle()
    assert (await later.queries.workflow(ANN, run.workflow_id)).steps["pay"] == "skipped"
    desk.clock.wait(2 * DAY)  # the approval's time is long over, the question's is not
    await later.engine.settle()
    (row,) = await pending(later)
    await later.decide(row.approval_id)
    await later.engine.settle()
    assert (await later.queries.workflow(ANN, run.workflow_id)).status == "completed"
    assert [call["tool"] for call in upstream.calls()] == ["read"]
    await later.check_record()


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
