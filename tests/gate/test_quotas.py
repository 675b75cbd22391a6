"""What one agent may pile up in a run is bounded, whatever it asks for."""

from __future__ import annotations

import pytest

from charter.errors import Refused
from charter.workflows.quotas import SPARE
from tests.gate.conftest import Open
from tests.guarantees.world import template

pytestmark = pytest.mark.anyio
CALLS = 5


@pytest.mark.guarantee("G10")
async def test_an_agent_that_proposes_without_end_is_refused_and_the_run_stays_small(opened: Open) -> None:
    step = {"id": "work", "type": "agent", "allowed_tools": ["*"], "calls": CALLS}
    desk = await opened(templates=[template("few", step)])
    work = await desk.session(template="few")
    most = 2 * CALLS + SPARE
    for n in range(most):
        await work.propose("counter__charge", account="acme", cents=n)
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await work.propose("counter__charge", account="acme", cents=-1)
        assert refused.value.error_code == "too_many_proposals"
        assert "complete the step" in refused.value.next_step
    with pytest.raises(Refused):
        await work.invoke("counter__charge", account="acme", cents=-2)
    await work.propose("counter__charge", account="acme", cents=3)
    assert (await work.invoke("counter__read", what="x")).status == "succeeded", "what asks nobody goes on"
    state = await desk.gate.states.fresh("default", work.workflow_id)
    assert state is not None
    assert len(state.proposals) == most
    assert (await desk.types(work.workflow_id)).count("COMMAND_REFUSED") == 4
