"""Proposals that run side by side: all of them may run, or none does; each takes the governed road; partial failure is told."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from charter.errors import Denied, Refused
from charter.gate import CallContext, Limits
from charter.model import commands as cmd
from charter.model.effect import Effect, EffectOutcome
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import OPS, OTHER_AGENT, Desk, Work, template

pytestmark = pytest.mark.anyio


async def batch(work: Work, *proposal_ids: str, by: Any = None, ctx: CallContext | None = None) -> Any:
    command = cmd.InvokeBatch(
        workflow_id=work.workflow_id, agent_invocation_id=work.invocation_id, proposal_ids=proposal_ids
    )
    return await work.desk.gate.handle(by or work.by, command, ctx or CallContext())


async def proposed(work: Work, tool: str, /, **arguments: Any) -> str:
    return str((await work.propose(tool, **arguments)).proposal_id)


async def charges(work: Work, *cents: int) -> list[str]:
    return [await work.approved("counter__charge", account="acme", cents=amount) for amount in cents]


def told(refusal: pytest.ExceptionInfo[Refused]) -> dict[int, str]:
    """The members that stopped a batch, with their codes."""
    assert refusal.value.error_code == "batch_not_ready"
    members = refusal.value.detail["members"]
    assert all(item["message"] and item["next_step"] for item in members)
    return {item["index"]: item["code"] for item in members}


class Counted:
    """The real runner, which says how many calls it runs at once, and keeps them until there are as many as it waits for."""

    def __init__(self, runner: Runner, together: int) -> None:
        self.runner, self.together = runner, together
        self.running = self.most = 0
        self.full = asyncio.Event()

    async def run(self, effect: Effect, **more: Any) -> EffectOutcome:
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running >= self.together:
            self.full.set()
        await self.full.wait()
        try:
            return await self.runner.run(effect, **more)
        finally:
            self.running -= 1

    async def preview(self, *_: Any) -> None:
        return None


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G5")
async def test_what_was_approved_or_is_permitted_runs_side_by_side_and_is_answered_in_order(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    runner = Counted(tools[1], together=3)
    desk = await opened(runner=runner, limits=Limits(batch_at_once=3))
    work = await desk.session()
    ids = [*await charges(work, 1, 2), await proposed(work, "counter__read", what="a"), *await charges(work, 3, 4)]
    steps: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, _message: str | None) -> None:
        steps.append((done, total))

    reply = await batch(work, *ids, ctx=CallContext(progress=progress))
    assert [item.proposal_id for item in reply.results] == ids
    assert [item.index for item in reply.results] == [0, 1, 2, 3, 4]
    assert [item.structured["result"] for item in reply.results] == [
        *("charged acme 1", "charged acme 2", "this is a", "charged acme 3", "charged acme 4")
    ]
    assert (reply.succeeded, reply.failed, runner.most) == (5, 0, 3)
    assert steps == [(done, 5) for done in (1, 2, 3, 4, 5)]
    assert len(upstream.calls()) == 5
    permits = [event.data for event in await desk.events(work.workflow_id) if event.type == "POLICY_DECISION"]
    ran = [event.data for event in await desk.events(work.workflow_id) if event.type == "TOOL_INVOKE"]
    assert {item["proposal_id"] for item in ran} == set(ids)
    assert {item["digest"] for item in ran} <= {item.get("digest") for item in permits if item["verdict"] == "permit"}
    assert all(item["approval_ids"] for item in ran if item["tool"] == "counter__charge")
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_a_batch_has_no_member_that_was_not_reviewed(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    [approved] = await charges(work, 1)
    asked, _ = await work.asked("counter__charge", account="acme", cents=2)
    fresh = await proposed(work, "counter__charge", account="acme", cents=3)
    rejected, approval_id = await work.asked("counter__charge", account="acme", cents=4)
    await desk.decide(approval_id, "reject")
    used = await work.approved("counter__charge", account="acme", cents=5)
    await work.run(used)
    other = await desk.session()
    elsewhere = await proposed(other, "counter__read", what="a")
    before = upstream.calls()
    with pytest.raises(Refused) as refusal:
        await batch(work, approved, asked, fresh, rejected, used, elsewhere)
    assert told(refusal) == {
        1: "approval_required",
        2: "approval_required",
        3: "approval_rejected",
        4: "already_used",
        5: "unknown_proposal",
    }
    assert upstream.calls() == before, "nothing of it has run"
    refused = await desk.last(work.workflow_id, "COMMAND_REFUSED")
    assert (refused["command"], refused["code"]) == ("invoke_batch", "batch_not_ready")
    assert (await batch(work, approved)).succeeded == 1, "the refusal used nothing up"
    await desk.check_record()


async def test_the_policy_is_asked_about_each_as_if_those_before_it_had_run(opened: Open, upstream: Counting) -> None:
    small = template("small", {"id": "work", "type": "agent", "allowed_tools": ["*"], "calls": 2})
    desk = await opened(templates=(small,))
    work = await desk.session(template="small")
    ids = [await proposed(work, "counter__read", what=str(number)) for number in range(3)]
    with pytest.raises(Refused) as refusal:
        await batch(work, *ids)
    assert told(refusal) == {2: "budget_exhausted"}
    assert upstream.calls() == []
    assert (await batch(work, *ids[:2])).succeeded == 2


@pytest.mark.parametrize("case_id", [None, "case-1"])
async def test_a_standing_grant_is_enough_for_as_many_as_it_has_uses(
    desk: Desk, upstream: Counting, case_id: str | None
) -> None:
    work = await desk.session(case_id="case-1")
    await desk.grant(work.workflow_id, "counter__write_idempotent", {}, uses=2, case_id=case_id)
    ids = [await proposed(work, "counter__write_idempotent", what=name, value="1") for name in "abc"]
    with pytest.raises(Refused) as refusal:
        await batch(work, *ids)
    assert told(refusal) == {2: "approval_required"}
    assert upstream.calls() == []
    reply = await batch(work, *ids[:2])
    assert (reply.succeeded, reply.failed) == (2, 0)
    await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_the_same_batch_twice_at_once_runs_each_call_once(opened: Open, upstream: Counting) -> None:
    """In two processes on one store: the members that the other one has run already say so."""
    first, second = await opened(), await opened()
    work = await first.session()
    ids = await charges(work, 1, 2, 3, 4)
    replies = await asyncio.gather(batch(work, *ids), batch(work.at(second), *ids), return_exceptions=True)
    codes: list[str | None] = []
    for reply in replies:
        if isinstance(reply, Refused):
            codes += [item["code"] for item in reply.detail["members"]]
        else:
            assert not isinstance(reply, BaseException), reply
            codes += [item.error_code for item in reply.results if not item.succeeded]
    assert set(codes) <= {"already_used"}
    assert sorted(call["cents"] for call in upstream.calls()) == [1, 2, 3, 4]
    await first.check_record()


async def test_one_that_fails_is_told_as_such_and_hinders_no_other(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    ids = [
        await proposed(work, "counter__read", what="a"),
        await proposed(work, "counter__refuse"),
        await work.approved("counter__slow", seconds=30),
        await proposed(work, "counter__huge", size=400_000),
    ]
    reply = await batch(work, *ids)
    assert [item.status for item in reply.results] == ["succeeded", "succeeded", "in_doubt", "succeeded"]
    assert [item.is_error for item in reply.results] == [False, True, True, False]
    assert (reply.succeeded, reply.failed) == (2, 2)
    assert "1, 2" in reply.next_step
    assert reply.results[3].result_ref
    assert reply.results[3].content == ()
    with pytest.raises(Refused) as refusal:
        await batch(work, ids[2])
    assert told(refusal) == {0: "effect_in_doubt"}, "what is in doubt is not repeated"
    await desk.check_record()


async def test_a_paused_run_begins_no_batch_and_an_ended_one_none(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    ids = await charges(work, 1, 2)
    await desk.gate.handle(OPS, cmd.PauseWorkflow(workflow_id=work.workflow_id))
    with pytest.raises(Refused) as refusal:
        await batch(work, *ids)
    assert refusal.value.error_code == "workflow_paused"
    await work.cancel()
    with pytest.raises(Refused) as refusal:
        await batch(work, *ids)
    assert set(told(refusal).values()) == {"workflow_not_live"}
    assert upstream.calls() == []
    await desk.check_record()


@pytest.mark.guarantee("G1")
async def test_a_batch_outside_a_workflow_or_of_another_agent_is_denied(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    ids = await charges(work, 1, 2)
    for missing in ({"workflow_id": None}, {"agent_invocation_id": None}, {"workflow_id": "wf_nowhere"}):
        command = cmd.InvokeBatch.model_validate({**work.ids, **missing, "proposal_ids": ids})
        with pytest.raises(Denied):
            await desk.gate.handle(work.by, command)
    with pytest.raises(Refused) as refusal:
        await batch(work, *ids, by=OTHER_AGENT)
    assert set(told(refusal).values()) == {"invocation_not_live"}
    assert upstream.calls() == []


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("by_scope", [True, False])
async def test_cancelling_it_ends_the_calls_that_run_on_record_and_begins_no_other(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, by_scope: bool
) -> None:
    runner = Counted(tools[1], together=99)
    desk = await opened(runner=runner, limits=Limits(batch_at_once=2))
    work = await desk.session()
    ids = await charges(work, 1, 2, 3)
    if by_scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(batch, work, *ids)
            await running(runner, 2)
            tasks.cancel_scope.cancel()
    else:
        task = asyncio.create_task(batch(work, *ids))
        await running(runner, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    types = await desk.types(work.workflow_id)
    assert (types.count("TOOL_INVOKE"), types.count("EFFECT_IN_DOUBT")) == (2, 2)
    assert len(await desk.effects("running")) == 0
    await desk.check_record()


async def running(runner: Counted, count: int) -> None:
    while runner.running < count:  # noqa: ASYNC110 - the runner is asked, not told
        await asyncio.sleep(0.005)
