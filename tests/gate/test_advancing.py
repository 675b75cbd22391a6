"""Having a run go on by hand: the policy lets it or not, what is due is done once, and what is missing has a name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from charter.engine.embedded import EmbeddedEngine
from charter.errors import Denied, NotFound
from charter.model import commands as cmd
from charter.model.principal import Principal
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, BOB, OPS, OTHER_AGENT, Desk, template

pytestmark = pytest.mark.anyio

STRANGER = Principal(id="mallory", kind="human")
PAUSES = template(
    "pauses",
    {"id": "rest", "type": "wait", "seconds": 60},
    {"id": "look", "type": "action", "tool": "counter__read", "arguments": {"what": "a"}},
    {"id": "agree", "type": "approval", "question": "Well?"},
)


async def advance(desk: Desk, workflow_id: str, by: Principal = AGENT) -> Any:
    """As anybody who also asks for what only the engine does: making the steps' calls."""
    return await desk.gate.handle(by, cmd.AdvanceWorkflow(workflow_id=workflow_id, run_steps=True))


async def test_it_says_what_is_missing_and_changes_nothing_until_something_is_due(
    opened: Open, upstream: Counting
) -> None:
    desk = await opened(templates=(PAUSES,))
    run = (await desk.start("pauses")).workflow_id
    before = await desk.types(run)
    for who in (AGENT, ANN, OPS):
        reply = await advance(desk, run, who)
        assert (reply.moved, reply.ready) == ((), ())
        assert [(item.what, item.step_id) for item in reply.missing] == [("timer", "rest")]
        assert "rest" in reply.next_step
    assert await desk.types(run) == before, "what moves nothing is not on record"

    desk.clock.wait(60)
    reply = await advance(desk, run)
    assert [(item.step_id, item.what) for item in reply.moved] == [("rest", "WORKFLOW_STEP"), ("look", "WORKFLOW_STEP")]
    assert reply.ready == ("look",)
    assert upstream.calls() == [], "the engine makes the call, not the caller"
    decided = await desk.last(run, "POLICY_DECISION")
    assert (decided["action"], decided["facts"]["principal"]["id"]) == ("workflow.advance", AGENT.id)

    await desk.engine.settle()
    assert len(upstream.calls()) == 1
    reply = await advance(desk, run)
    assert [(item.what, item.approval_id is not None) for item in reply.missing] == [("approval", True)]
    await desk.decide(reply.missing[0].approval_id, by=BOB)
    reply = await advance(desk, run)
    assert (reply.status, reply.missing) == ("completed", ())
    assert "start another" in reply.next_step
    await desk.check_record()


async def test_it_passes_over_no_pause_and_no_approval(opened: Open) -> None:
    desk = await opened(templates=(PAUSES,))
    run = (await desk.start("pauses")).workflow_id
    await desk.gate.handle(OPS, cmd.PauseWorkflow(workflow_id=run))
    desk.clock.wait(3600)
    reply = await advance(desk, run)
    assert (reply.moved, reply.status, reply.missing[0].what) == ((), "paused", "operator")
    assert "resume" in reply.next_step
    await desk.check_record()


async def test_the_policy_decides_who_may(opened: Open) -> None:
    desk = await opened(templates=(PAUSES,))
    run = (await desk.start("pauses")).workflow_id
    desk.clock.wait(60)
    for who in (STRANGER, BOB, OTHER_AGENT, Principal(id="agent:x", kind="agent", roles=("operator",))):
        with pytest.raises(Denied):
            await advance(desk, run, who)
    assert (await desk.types(run)).count("WORKFLOW_STEP") == 1, "nothing moved"
    assert (await desk.last(run, "POLICY_DECISION"))["verdict"] == "deny"
    with pytest.raises(NotFound):
        await advance(desk, "wf_nowhere")
    with pytest.raises(NotFound):
        await advance(desk, run, Principal(id=AGENT.id, kind="agent", tenant="other", acts_for="ann"))
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_two_processes_and_the_engine_at_once_do_what_is_due_once(opened: Open, upstream: Counting) -> None:
    first, second = await opened(templates=(PAUSES,)), await opened(templates=(PAUSES,))
    run = (await first.start("pauses")).workflow_id
    first.clock.wait(60)
    await asyncio.gather(advance(first, run), advance(second, run), advance(second, run, OPS), first.engine.settle())
    await first.engine.settle()
    assert len(upstream.calls()) == 1
    assert (await first.types(run)).count("APPROVAL_REQUESTED") == 1
    await first.check_record()


async def test_it_has_the_engine_look_again_at_a_run_that_it_let_rest(opened: Open) -> None:
    desk = await opened(templates=(PAUSES,))
    engine = desk.engine
    assert isinstance(engine, EmbeddedEngine)
    run = (await desk.start("pauses")).workflow_id
    desk.clock.wait(60)
    await advance(desk, run)
    handle, tries = desk.gate.handle, 0

    async def broken(principal: Principal, command: cmd.Command, *more: Any) -> Any:
        nonlocal tries
        if isinstance(command, cmd.AdvanceWorkflow) and principal.kind == "service":
            tries += 1
            raise NotFound("Not now.")
        return await handle(principal, command, *more)

    desk.gate.handle = broken  # type: ignore[method-assign,assignment]
    await engine.settle()
    await engine.settle()
    assert tries == 1, "it rests"
    assert (await advance(desk, run)).ready == ("look",)
    desk.gate.handle = handle  # type: ignore[method-assign]
    await engine.settle()
    assert (await desk.types(run)).count("TOOL_RESULT") == 1
