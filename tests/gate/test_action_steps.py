"""A workflow's own tool calls through the gate: what people approved, edited or not, is what runs."""

from __future__ import annotations

import pytest

from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import CAT, template

pytestmark = pytest.mark.anyio

SAVE = template(
    "save",
    {
        "id": "save",
        "type": "action",
        "tool": "counter__write_idempotent",
        "arguments": {"what": "a", "value": "{{ trigger.value }}"},
    },
    output="{{ steps.save.status }}",
)


@pytest.mark.guarantee("G3")
async def test_an_action_that_a_reviewer_edited_runs_as_edited_and_once(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAVE,))
    run = await desk.start("save", input={"value": "1"})
    await desk.engine.settle()
    asked = (await desk.last(run.workflow_id, "APPROVAL_REQUESTED"))["request"]
    await desk.decide(asked["approval_id"], "edit", edited_arguments={"what": "a", "value": "2"})
    await desk.engine.settle()
    second = (await desk.last(run.workflow_id, "APPROVAL_REQUESTED"))["request"]
    assert second["approval_id"] != asked["approval_id"]
    assert upstream.calls() == []
    await desk.decide(second["approval_id"], by=CAT)
    await desk.engine.settle()
    types = await desk.types(run.workflow_id)
    assert types.count("APPROVAL_REQUESTED") == 2
    assert types[-1] == "WORKFLOW_COMPLETED"
    assert (await desk.last(run.workflow_id, "TOOL_INVOKE"))["arguments"] == {"what": "a", "value": "2"}
    assert len(upstream.calls()) == 1
    await desk.check_record()
