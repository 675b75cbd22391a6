"""Each further step type, driven by the engine through the real gate and store."""

from __future__ import annotations

import pytest

from tests.engine.test_embedded import action
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import ANN, template

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
