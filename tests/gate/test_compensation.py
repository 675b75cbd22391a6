"""Undoing through the gate and the engine, on a real upstream, with a process that dies in the middle."""

from __future__ import annotations

import pytest

from charter.model import commands as cmd
from charter.model.principal import service
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, template

pytestmark = pytest.mark.anyio

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


@pytest.mark.guarantee("G6")
async def test_a_process_that_dies_while_it_undoes_leaves_it_to_the_next(opened: Open, upstream: Counting) -> None:
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
