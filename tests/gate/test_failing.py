"""What an operator supplies for an agent's step in review must be what the agent was to hand over."""

from __future__ import annotations

import pytest

from charter.errors import InvalidInput
from charter.model import commands as cmd
from tests.gate.conftest import Open
from tests.guarantees.world import OPS, Clock, template

pytestmark = pytest.mark.anyio

WORK = {
    "id": "work",
    "type": "agent",
    "expires_after_seconds": 60,
    "on_failure": "human_review",
    "artifacts": [{"name": "plan", "schema": {"type": "string"}}],
}


async def test_what_is_supplied_for_an_agents_work_fits_its_schema(opened: Open, clock: Clock) -> None:
    desk = await opened(templates=(template("late", WORK, output="{{ steps.work.output.plan }}"),))
    run = await desk.start("late")
    clock.wait(61)
    await desk.engine.settle()
    assert [item.what for item in (await desk.queries.workflow(OPS, run.workflow_id)).blocked_by] == ["review"]
    before = await desk.types(run.workflow_id)
    review = cmd.ReviewStep(workflow_id=run.workflow_id, step_id="work", resolution="supply", output={"plan": 5})
    with pytest.raises(InvalidInput):
        await desk.gate.handle(OPS, review)
    assert await desk.types(run.workflow_id) == before
    done = await desk.gate.handle(OPS, review.model_copy(update={"output": {"plan": "so"}}))
    assert (done.status, done.output) == ("completed", "so")
    await desk.check_record()
