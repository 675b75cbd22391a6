"""Steps that start workflows: one child each, its end on the parent's record, and nobody left running for nobody."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import Refused
from charter.gate import NO_CONTEXT
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.model.signal import Signal
from charter.store.port import Filter, Page
from charter.workflows.children import MAX_DEPTH, Lineage
from tests.gate.conftest import Open
from tests.guarantees.world import AGENT, ANN, BOB, OPS, Clock, Desk, template

pytestmark = pytest.mark.anyio

CHILD = template(
    "child",
    {"id": "word", "type": "wait", "signal": {"type": "word"}},
    {"id": "check", "type": "condition", "expression": "steps.word.output.signal.data.ok"},
    {"id": "agree", "type": "approval", "question": "Go on?", "if": "has(trigger.ask)"},
    output={"heard": "{{ steps.word.output.signal.data.ok }}", "n": "{{ trigger.n }}"},
)


def parent(**more: Any) -> Any:
    step = {"id": "sub", "type": "workflow", "template": "child", "input": {"n": "{{ trigger.n }}"}, **more}
    return template("parent", step, output="{{ steps.sub.output }}")


async def begun(desk: Desk, **given: Any) -> tuple[str, str]:
    """A parent and its child, which waits for a word."""
    run = await desk.start("parent", input={"n": 7, **given})
    await desk.engine.settle()
    shown = await desk.queries.workflow(AGENT, run.workflow_id)
    return run.workflow_id, shown.children["sub"]


async def say(desk: Desk, child_id: str, data: Any) -> None:
    signal = Signal(id="s1", source="test", type="word", data=data)
    await desk.gate.handle(OPS, cmd.SendSignal(signal=signal, workflow_id=child_id))
    await desk.engine.settle()


async def statuses(desk: Desk, *ids: str) -> list[str]:
    return [(await desk.queries.workflow(OPS, key)).status for key in ids]


async def test_a_child_runs_to_its_end_and_its_output_is_the_steps(opened: Open) -> None:
    desk = await opened(templates=(parent(), CHILD))
    parent_id, child_id = await begun(desk)
    [blocker] = (await desk.queries.workflow(ANN, parent_id)).blocked_by
    assert (blocker.what, blocker.who) == ("workflow", child_id)
    child = await desk.queries.workflow(ANN, child_id)
    assert (child.parent_workflow_id, child.purpose) == (parent_id, "a test")
    await say(desk, child_id, {"ok": True})
    ended = await desk.queries.workflow(ANN, parent_id)
    assert (ended.status, ended.output) == ("completed", {"heard": True, "n": 7})
    started = next(event for event in await desk.events(child_id) if event.type == "WORKFLOW_STARTED")
    lineage = {key: started.data[key] for key in ("parent_workflow_id", "parent_step_id", "depth", "started_by")}
    assert lineage == {
        "parent_workflow_id": parent_id,
        "parent_step_id": "sub",
        "depth": 1,
        "started_by": AGENT.id,
    }
    confirmed = next(event for event in await desk.events(parent_id) if event.type == "CHILD_STARTED")
    assert confirmed.causation_id == started.causation_id
    await desk.check_record()


@pytest.mark.parametrize(
    ("on_failure", "status", "step"),
    [("fail_workflow", "failed", "failed"), ("skip", "completed", "skipped"), ("human_review", "waiting", "review")],
)
async def test_a_child_that_fails_is_its_steps_failure(opened: Open, on_failure: str, status: str, step: str) -> None:
    desk = await opened(templates=(parent(on_failure=on_failure), CHILD))
    parent_id, child_id = await begun(desk)
    await say(desk, child_id, {"ok": "perhaps"})
    assert await statuses(desk, parent_id, child_id) == [status, "failed"]
    state = await desk.queries.state(OPS, parent_id)
    assert (state.steps["sub"].status, state.steps["sub"].code) == (step, "child_failed")
    assert "neither" in str(state.steps["sub"].reason) or "condition" in str(state.steps["sub"].reason)
    await desk.check_record()


async def test_a_failed_child_is_followed_by_another_where_the_step_retries(opened: Open, clock: Clock) -> None:
    desk = await opened(templates=(parent(retry={"attempts": 2, "backoff_seconds": 60}), CHILD))
    parent_id, first = await begun(desk)
    await say(desk, first, {"ok": 1})
    clock.wait(60)
    await desk.engine.settle()
    second = (await desk.queries.workflow(AGENT, parent_id)).children["sub"]
    assert second != first
    await say(desk, second, {"ok": False})
    assert await statuses(desk, parent_id, first, second) == ["completed", "failed", "completed"]
    await desk.check_record()


async def test_a_rejected_child_fails_the_step(opened: Open) -> None:
    desk = await opened(templates=(parent(input={"n": 1, "ask": True}), CHILD))
    parent_id, child_id = await begun(desk)
    await say(desk, child_id, {"ok": True})
    approval_id = (await desk.last(child_id, "APPROVAL_REQUESTED"))["request"]["approval_id"]
    await desk.decide(approval_id, "reject", by=BOB)
    await desk.engine.settle()
    assert await statuses(desk, parent_id, child_id) == ["failed", "rejected"]
    assert (await desk.queries.state(OPS, parent_id)).steps["sub"].code == "child_rejected"


async def test_cancelling_flows_down_and_once(opened: Open) -> None:
    desk = await opened(templates=(parent(), CHILD))
    parent_id, child_id = await begun(desk)
    await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=parent_id))
    await desk.engine.settle()
    assert await statuses(desk, parent_id, child_id) == ["cancelled", "cancelled"]
    before = len(await desk.whole_log())
    await desk.engine.settle()
    assert len(await desk.whole_log()) == before, "nothing is left to be told"
    assert await desk.store.next_wake() is None
    await desk.check_record()


async def test_a_child_that_takes_too_long_is_cancelled_and_the_parent_goes_on(opened: Open, clock: Clock) -> None:
    desk = await opened(templates=(parent(timeout_seconds=60, on_timeout="skip"), CHILD))
    parent_id, child_id = await begun(desk)
    clock.wait(61)
    await desk.engine.settle()
    assert await statuses(desk, parent_id, child_id) == ["completed", "cancelled"]
    assert await desk.store.next_wake() is None
    await desk.check_record()


async def test_a_crash_after_the_childs_start_starts_no_second_one(opened: Open) -> None:
    """The child is there and the parent's record does not say so: what a kill between the two commits leaves."""
    desk = await opened(templates=(parent(), CHILD))
    run = await desk.start("parent", input={"n": 7})
    child_id = (await desk.last(run.workflow_id, "WORKFLOW_STEP"))["child_workflow_id"]
    lineage = Lineage(run.workflow_id, "sub", 1)
    command = cmd.StartWorkflow(template="child", input={"n": 7}, purpose="a test")
    await desk.gate.starts.start(AGENT, command, NO_CONTEXT, claims=(("child", child_id),), child=(child_id, lineage))
    other = await opened(templates=(parent(), CHILD))
    await other.engine.settle()
    rows, _ = await other.queries.workflows(OPS, Filter(template="child@1"), Page())
    assert [row.workflow_id for row in rows] == [child_id]
    await say(other, child_id, {"ok": True})
    assert await statuses(other, run.workflow_id) == ["completed"]
    await other.check_record()


async def test_a_crash_after_the_childs_end_loses_no_end(opened: Open) -> None:
    desk = await opened(templates=(parent(), CHILD))
    parent_id, child_id = await begun(desk)
    signal = Signal(id="s1", source="test", type="word", data={"ok": True})
    await desk.gate.handle(OPS, cmd.SendSignal(signal=signal, workflow_id=child_id))
    assert await statuses(desk, parent_id, child_id) == ["running", "completed"], "the engine has not looked yet"
    other = await opened(templates=(parent(), CHILD))
    await other.engine.settle()
    assert await statuses(other, parent_id) == ["completed"]
    await other.check_record()


async def test_a_child_that_was_announced_and_is_not_wanted_any_more_never_starts(opened: Open) -> None:
    """Not even by a process that meant to start it before the parent was cancelled."""
    desk = await opened(templates=(parent(), CHILD))
    run = await desk.start("parent", input={"n": 7})
    child_id = (await desk.last(run.workflow_id, "WORKFLOW_STEP"))["child_workflow_id"]
    await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id))
    await desk.engine.settle()
    assert (await desk.last(run.workflow_id, "CHILD_ENDED"))["status"] == "never_started"
    late = cmd.StartWorkflow(template="child", input={"n": 7}, purpose="a test")
    lineage = Lineage(run.workflow_id, "sub", 1)
    with pytest.raises(Refused):
        await desk.gate.starts.start(AGENT, late, NO_CONTEXT, claims=(("child", child_id),), child=(child_id, lineage))
    await desk.check_record()


async def test_a_start_that_is_wrong_fails_the_step_and_says_why(opened: Open) -> None:
    desk = await opened(templates=(parent(template="nowhere"), CHILD))
    run = await desk.start("parent", input={"n": 7})
    await desk.engine.settle()
    state = await desk.queries.state(OPS, run.workflow_id)
    assert (state.status, state.steps["sub"].code) == ("failed", "unknown_template")
    await desk.check_record()


async def test_the_policy_decides_on_the_start_as_the_parents_caller(opened: Open) -> None:
    """With the roles that its credential had: a service without the role could start neither."""
    desk = await opened(templates=(parent(), CHILD))
    sender = Principal(id="svc", kind="service", roles=("operator",))
    run = await desk.start("parent", by=sender, input={"n": 1})
    await desk.engine.settle()
    child_id = (await desk.queries.workflow(OPS, run.workflow_id)).children["sub"]
    started = next(event for event in await desk.events(child_id) if event.type == "POLICY_DECISION")
    assert started.data["facts"]["principal"]["roles"] == ["operator"]
    assert started.data["facts"]["principal"]["id"] == "svc"


async def test_a_template_that_starts_itself_comes_to_its_end(opened: Open) -> None:
    step = {"id": "sub", "type": "workflow", "template": "deep", "if": "trigger.again", "input": {"again": True}}
    desk = await opened(templates=(template("deep", step),))
    await desk.start("deep", input={"again": True})
    await desk.engine.settle()
    rows, _ = await desk.queries.workflows(OPS, Filter(template="deep@1"), Page())
    assert len(rows) == MAX_DEPTH + 1
    assert {row.status for row in rows} == {"failed"}
    deepest = await desk.queries.state(OPS, rows[0].workflow_id)
    assert (deepest.depth, deepest.steps["sub"].code) == (MAX_DEPTH, "too_deep")
    await desk.check_record()
