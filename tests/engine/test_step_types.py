"""Each further step type, driven by the engine through the real gate and store."""

from __future__ import annotations

import pytest

from charter.errors import Denied
from charter.model import commands as cmd
from tests.engine.test_embedded import action
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, OPS, Desk, template

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("cents", "ran"), [(500, "large"), (5, "small")])
async def test_a_condition_runs_one_branch_and_the_join(opened: Open, upstream: Counting, cents: int, ran: str) -> None:
    branching = template(
        "branching",
        {"id": "big", "type": "condition", "expression": "trigger.cents > 100", "if_true": ["a"], "if_false": ["b"]},
        action("a", "read", what="large"),
        action("b", "read", {"needs": ["big"]}, what="small"),
        action("end", "read", {"needs": ["a", "b"]}, what="end"),
        output="{{ steps.big.output.branch }}",
    )
    desk = await opened(templates=(branching,))
    run = await desk.start("branching", input={"cents": cents})
    await desk.engine.settle()
    context = await desk.queries.workflow(ANN, run.workflow_id)
    assert (context.status, context.output) == ("completed", "if_true" if cents > 100 else "if_false")
    assert [call["what"] for call in upstream.calls()] == [ran, "end"]
    await desk.check_record()


async def attempts(desk: Desk, workflow_id: str) -> int:
    return (await desk.types(workflow_id)).count("TOOL_INVOKE")


REFUSED = template(
    "refused",
    action("go", "refuse", {"retry": {"attempts": 3, "backoff_seconds": 60}, "on_failure": "human_review"}),
    output="{{ steps.go.output.n }}",
)


@pytest.mark.guarantee("G6")
async def test_a_failed_attempt_is_made_again_at_its_time_by_whichever_process_is_there(
    opened: Open, upstream: Counting
) -> None:
    desk = await opened(templates=(REFUSED,))
    run = await desk.start("refused")
    await desk.engine.settle()
    assert await attempts(desk, run.workflow_id) == 1
    desk.clock.wait(59)
    await desk.engine.settle()
    assert await attempts(desk, run.workflow_id) == 1
    for attempt, seconds in ((2, 2), (3, 121)):
        desk = await opened(templates=(REFUSED,))  # nothing in memory
        desk.clock.wait(seconds)
        await desk.engine.settle()
        await desk.engine.settle()
        assert await attempts(desk, run.workflow_id) == attempt
    assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "review"
    assert await desk.store.next_wake() is None
    await desk.check_record()


async def test_an_operator_says_how_a_step_goes_on_and_nobody_else(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(template("now", action("go", "refuse", {"on_failure": "human_review"})),))
    run = await desk.start("now")
    await desk.engine.settle()
    command = cmd.ReviewStep(workflow_id=run.workflow_id, step_id="go", resolution="retry", comment="it is back")
    for somebody in (AGENT, ANN):
        with pytest.raises(Denied):
            await desk.gate.handle(somebody, command)
    await desk.gate.handle(OPS, command)
    await desk.engine.settle()
    assert await attempts(desk, run.workflow_id) == 2
    supplied = command.model_copy(update={"resolution": "supply", "output": {"n": 7}})
    assert (await desk.gate.handle(OPS, supplied)).status == "completed"
    assert (await desk.last(run.workflow_id, "STEP_REVIEWED"))["reviewed_by"] == "ops"
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_a_wait_ends_at_its_time_in_another_process_and_once(opened: Open, upstream: Counting) -> None:
    waiting = template("waiting", {"id": "w", "type": "wait", "seconds": 3600}, action("go", "read", what="x"))
    desk = await opened(templates=(waiting,))
    run = await desk.start("waiting")
    await desk.engine.settle()
    assert await desk.store.next_wake() is not None
    desk.clock.wait(3500)
    await desk.engine.settle()
    assert upstream.calls() == []
    one, other = await opened(templates=(waiting,)), await opened(templates=(waiting,))
    desk.clock.wait(90_000)
    for each in (one, other):
        await each.engine.settle()
    assert (await other.queries.workflow(ANN, run.workflow_id)).status == "completed"
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_a_wait_for_a_signal_is_given_up_at_its_time_in_another_process(opened: Open, upstream: Counting) -> None:
    step = {"id": "w", "type": "wait", "signal": {"type": "go"}, "timeout_seconds": 3600, "on_timeout": "skip"}
    waiting = template("waiting", step, action("then", "read", what="x"))
    run = await (await opened(templates=(waiting,))).start("waiting")
    desk = await opened(templates=(waiting,))
    desk.clock.wait(3590)
    await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "signal"
    desk.clock.wait(90_000)
    await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
    assert len(upstream.calls()) == 1
    assert await desk.store.waiting_for("default", "go", "", 9) == []
    await desk.check_record()


async def test_a_paused_run_is_left_alone_until_an_operator_resumes_it(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(template("plain", action("go", "read", what="x")),))
    run = await desk.start("plain")
    hold = cmd.PauseWorkflow(workflow_id=run.workflow_id, reason="the upstream is sick")
    with pytest.raises(Denied):
        await desk.gate.handle(ANN, hold)
    assert (await desk.gate.handle(OPS, hold)).status == "paused"
    await desk.engine.settle()
    assert upstream.calls() == []
    assert await desk.store.next_wake() is None
    other = await opened(templates=(template("plain", action("go", "read", what="x")),))
    await other.gate.handle(OPS, cmd.ResumeWorkflow(workflow_id=run.workflow_id))
    await desk.engine.settle()
    assert len(upstream.calls()) == 1
    assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
    await desk.check_record()
