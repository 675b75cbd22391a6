"""What every engine must do when processes come and go: go on where another one stopped, and do nothing twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from charter.errors import Unavailable
from charter.gate import Gate
from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.template import Template
from charter.tools.runner import Runner
from tests.engine.driven import CHAIN, action, pending, question
from tests.gate.conftest import Open
from tests.gate.test_effects import Changed, Died, Dying
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, DAY, template

BOOK = template(
    "book",
    *(
        {
            "id": name,
            "type": "action",
            "tool": "counter__read",
            "arguments": {"what": name},
            "compensate": {"tool": "counter__read", "arguments": {"what": f"undo {name}"}},
        }
        for name in ("hotel", "flight")
    ),
    {"id": "word", "type": "wait", "signal": {"type": "word"}},
)


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


class ProcessesContract:
    """Several processes on one store, at once and one after another."""

    @pytest.mark.guarantee("G6")
    async def test_another_process_goes_on_where_one_stopped(self, opened: Open, upstream: Counting) -> None:
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
    async def test_two_engines_on_one_store_run_each_step_once(self, opened: Open, upstream: Counting) -> None:
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

    async def test_the_running_engine_hears_of_what_this_and_another_process_did(
        self, opened: Open, upstream: Counting
    ) -> None:
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

    async def test_the_engine_outlives_a_store_that_does_not_answer(self, opened: Open, upstream: Counting) -> None:
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
        self, opened: Open, tools: tuple[Governed, Runner], upstream: Counting
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

    @pytest.mark.guarantee("G6")
    async def test_a_process_that_dies_while_it_undoes_leaves_it_to_the_next(
        self, opened: Open, upstream: Counting
    ) -> None:
        desk = await opened(templates=(BOOK,))
        run = await desk.start("book", by=AGENT)
        await desk.engine.settle()
        cancelled = await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id, reason="no trip"))
        assert cancelled.status == "compensating"
        step = cmd.RunStep(workflow_id=run.workflow_id, step_id="undo:flight")
        await desk.gate.handle(service("engine", "default"), step)
        other = await opened(templates=(BOOK,))  # the first is gone: nothing of it is asked any more
        await other.engine.settle()
        assert [call["what"] for call in upstream.calls()] == ["hotel", "flight", "undo flight", "undo hotel"]
        ended = await other.last(run.workflow_id, "WORKFLOW_CANCELLED")
        assert (ended["compensated"], ended["reason"]) == (["flight", "hotel"], "no trip")
        await other.check_record()

    @pytest.mark.guarantee("G5")
    @pytest.mark.parametrize("sends", [True, False])
    @pytest.mark.parametrize("tool", ["write_idempotent", "charge"])
    async def test_a_step_whose_process_died_between_intent_and_outcome(
        self, opened: Open, tools: tuple[Governed, Runner], upstream: Counting, tool: str, sends: bool
    ) -> None:
        """Run again under its key where that is harmless, else put to a person: never twice in silence."""
        writes = {"what": "a", "value": "1"}
        given: dict[str, Any] = writes if tool == "write_idempotent" else {"account": "a", "cents": 1}
        flow = template("flow", action("go", tool, **given), action("then", "read", what="x"))
        dead = await opened(templates=(flow,), runner=Dying(tools[1], sends=sends))
        run = await dead.start("flow")
        advance = cmd.AdvanceWorkflow(workflow_id=run.workflow_id)
        go = cmd.RunStep(workflow_id=run.workflow_id, step_id="go")
        engine = service("engine", "default")
        await dead.gate.handle(engine, advance)
        await dead.gate.handle(engine, go)
        (row,) = await pending(dead)
        await dead.decide(row.approval_id)
        await dead.gate.handle(engine, advance)
        with pytest.raises(Died):
            await dead.gate.handle(engine, go)
        dead.store._instances.close()  # type: ignore[attr-defined]
        desk = await opened(templates=(flow,))
        assert await desk.engine.recover() == 1
        await desk.engine.settle()
        ran = [call["key"] for call in upstream.calls(tool)]
        if tool == "charge":
            (row,) = await desk.effects("in_doubt")
            assert len(ran) == sends
            assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "effect_in_doubt"
            await desk.resolve(run.workflow_id, row.effect_id, "ran", output={"result": "charged"})
            await desk.engine.settle()
        assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
        assert len(ran) == (sends if tool == "charge" else 1 + sends)
        assert len(set(ran)) <= 1
        assert [call["what"] for call in upstream.calls("read")] == ["x"]
        assert await desk.engine.recover() == 0
        await desk.check_record()

    @pytest.mark.guarantee("G6")
    async def test_a_run_and_the_run_that_it_waits_for_go_on_in_whichever_process_is_there(
        self, opened: Open, upstream: Counting
    ) -> None:
        step = {"id": "sub", "type": "workflow", "template": "chain", "input": {"what": "{{ trigger.what }}"}}
        parent = template("parent", step, action("then", "read", what="after"), output="{{ steps.sub.output }}")
        run: Any = None
        for _ in range(12):
            desk = await opened(templates=(parent, CHAIN))  # nothing in memory
            run = run or await desk.start("parent", input={"what": "acme"})
            await desk.engine.settle()
            rows = await pending(desk)
            if not rows:
                break
            await desk.decide(rows[0].approval_id)
        context = await desk.queries.workflow(ANN, run.workflow_id)
        assert (context.status, context.output) == ("completed", "charged acme 7")
        assert [call["tool"] for call in upstream.calls()] == ["read", "write_idempotent", "charge", "read"]
        assert (await desk.types(run.workflow_id)).count("CHILD_STARTED") == 1
        await desk.check_record()
