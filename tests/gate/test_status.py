"""A run's status is one and the same for all who look, and in lists."""

from __future__ import annotations

import pytest

from charter.store.port import Filter, Page
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, OPS, Desk, template

pytestmark = pytest.mark.anyio

SAVE = template(
    "save",
    {"id": "save", "type": "action", "tool": "counter__write_idempotent", "arguments": {"what": "a", "value": "1"}},
)


async def status(desk: Desk, workflow_id: str) -> str:
    """What everybody is told of the run."""
    shown = {(await desk.queries.workflow(by, workflow_id)).status for by in (AGENT, ANN, OPS)}
    rows, _ = await desk.queries.workflows(OPS, Filter(), Page())
    listed = {row.status for row in rows if row.workflow_id == workflow_id}
    assert shown == listed
    [found] = shown
    filtered, _ = await desk.queries.workflows(OPS, Filter(status=found), Page())
    assert workflow_id in {row.workflow_id for row in filtered}
    return found


async def test_an_agent_that_may_go_on_is_running_whatever_else_waits(desk: Desk) -> None:
    work = await desk.session()
    assert await status(desk, work.workflow_id) == "running"
    await work.asked("counter__write_idempotent", what="a", value="1")
    assert await status(desk, work.workflow_id) == "running"
    await work.complete({"summary": "done"})
    assert await status(desk, work.workflow_id) == "completed"


async def test_a_run_that_only_a_person_can_move_is_waiting(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAVE,))
    run = await desk.start("save")
    assert await status(desk, run.workflow_id) == "running", "Charter has the next step"
    await desk.engine.settle()
    assert await status(desk, run.workflow_id) == "waiting"
    approval_id = (await desk.last(run.workflow_id, "APPROVAL_REQUESTED"))["request"]["approval_id"]
    await desk.decide(approval_id)
    assert await status(desk, run.workflow_id) == "running"
    await desk.engine.settle()
    assert await status(desk, run.workflow_id) == "completed"
    assert len(upstream.calls()) == 1
