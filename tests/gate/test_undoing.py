"""Undoing through the gate: a request is undone by another request, decided by the policy, with secrets put in late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from charter.model import commands as cmd
from tests.gate.test_external import external, ran
from tests.guarantees.world import ANN, template
from tests.outside import outbound, outside_desk
from tests.web import Says, Site, site

pytestmark = pytest.mark.anyio


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda _: Says(200, {"id": 7})) as found:
        yield found


async def test_a_request_is_undone_by_another(tmp_path: Path, web: Site) -> None:
    flow = template(
        "flow",
        external(web, method="POST", extract={"id": "response.body.id"}, compensate={"step": "release"}),
        {
            **external(web, "/{{ steps.call.output.id }}"),
            "id": "release",
            "method": "DELETE",
        },
        {"id": "agree", "type": "approval", "question": "Go on?"},
    )
    async with outside_desk(tmp_path / "db", (flow,), outbound()) as desk:
        run = await desk.start("flow")
        shown = await ran(desk, run)
        assert shown.steps == {"call": "completed", "agree": "open"}
        await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id))
        await desk.engine.settle()
        ended = await desk.queries.workflow(ANN, run.workflow_id)
        assert (ended.status, ended.steps["undo:call"]) == ("cancelled", "completed")
        assert (await desk.last(run.workflow_id, "WORKFLOW_CANCELLED"))["compensated"] == ["call"]
        await desk.check_record()
    assert [(asked.method, asked.path) for asked in web.asked] == [("POST", "/"), ("DELETE", "/7")]
