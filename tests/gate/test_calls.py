"""Tool calls through the gate: denied, permitted, asked about, run, and on record before and after."""

from __future__ import annotations

import json
from typing import Any

import pytest

from charter.errors import Denied, InvalidInput, NotFound, Refused
from charter.model import commands as cmd
from charter.model.effect import Effect
from charter.model.principal import Principal
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, OTHER_AGENT, Desk

pytestmark = pytest.mark.anyio


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("workflow_id", "invocation_id"), [(None, None), ("", ""), ("wf_nobody", "inv_nobody"), ("wf_nobody", None)]
)
async def test_a_call_outside_any_workflow_is_denied_and_on_record(
    desk: Desk, upstream: Counting, workflow_id: str | None, invocation_id: str | None
) -> None:
    command = cmd.InvokeTool(
        workflow_id=workflow_id, agent_invocation_id=invocation_id, tool="counter__read", arguments={"what": "x"}
    )
    with pytest.raises(Denied) as denied:
        await desk.gate.handle(AGENT, command)
    assert denied.value.error_code in ("workflow_required", "workflow_not_live")
    assert denied.value.next_step
    recorded = await desk.last("tenant:default", "POLICY_DECISION")
    assert (recorded["verdict"], recorded["facts"]["resource_id"]) == ("deny", "counter__read")
    assert upstream.calls() == []


@pytest.mark.guarantee("G1")
async def test_a_run_s_id_without_its_own_live_invocation_opens_nothing(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    other = await desk.session()
    for invocation in ("", "inv_nobody", other.invocation_id):
        command = cmd.InvokeTool(
            workflow_id=work.workflow_id,
            agent_invocation_id=invocation,
            tool="counter__read",
            arguments={"what": "x"},
        )
        with pytest.raises(Denied):
            await desk.gate.handle(AGENT, command)
    stolen = cmd.InvokeTool(**work.ids, tool="counter__read", arguments={"what": "x"})
    for thief in (OTHER_AGENT, ANN, BOB, Principal(id="svc", kind="service")):
        with pytest.raises(Denied) as denied:
            await desk.gate.handle(thief, stolen)
        assert denied.value.error_code == "invocation_not_live"
    assert upstream.calls() == []


@pytest.mark.guarantee("G1")
async def test_nothing_runs_once_the_run_has_ended_or_the_step_is_done(desk: Desk, upstream: Counting) -> None:
    cancelled, completed = await desk.session(), await desk.session()
    await cancelled.cancel()
    await completed.complete()
    for work in (cancelled, completed):
        with pytest.raises(Denied):
            await work.invoke("counter__read", what="x")
    assert upstream.calls() == []


async def test_a_plain_read_never_asks_and_is_on_record_before_and_after(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    outcome = await work.invoke("counter__read", what="the weather")
    assert (outcome.status, outcome.content[0]["text"]) == ("succeeded", "this is the weather")
    assert (await desk.types(work.workflow_id))[-3:] == ["POLICY_DECISION", "TOOL_INVOKE", "TOOL_RESULT"]
    intent = await desk.last(work.workflow_id, "TOOL_INVOKE")
    assert [call["key"] for call in upstream.calls()] == [intent["idempotency_key"]]
    await desk.check_record()


async def test_a_write_asks_first_and_runs_once_after_a_person_agreed(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    pending = await work.invoke("counter__charge", account="acme", cents=5)
    assert (pending.status, pending.error_code) == ("pending_approval", "approval_required")
    assert upstream.calls() == []
    request = await work.ask(pending.proposal_id)
    assert request.asked_now
    assert not (await work.ask(pending.proposal_id)).asked_now, "people are asked once"
    await desk.decide(request.approval_id)
    outcome = await work.run(pending.proposal_id)
    assert (outcome.status, outcome.content[0]["text"]) == ("succeeded", "charged acme 5")
    with pytest.raises(Refused) as refused:
        await work.run(pending.proposal_id)
    assert refused.value.error_code == "already_used"
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_the_same_arguments_without_the_proposal_find_it_and_use_it_up(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    await work.approved("counter__charge", account="acme", cents=5)
    assert (await work.invoke("counter__charge", account="acme", cents=5)).status == "succeeded"
    assert (await work.invoke("counter__charge", account="acme", cents=5)).status == "pending_approval"
    assert len(upstream.calls()) == 1


class Noting:
    """Runs the tools, and notes the text of the arguments that leave."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.sent: list[str] = []

    async def run(self, effect: Effect, **more: Any) -> Any:
        self.sent.append(json.dumps(effect.arguments))
        return await self._runner.run(effect, **more)

    async def preview(self, *_: Any) -> None:
        return None


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize(("approved", "sent"), [(0, -0.0), (0.0, 0), (1, 1.0)])
async def test_what_runs_is_what_was_approved_to_the_last_byte(
    opened: Open, tools: tuple[Governed, Runner], approved: float, sent: float
) -> None:
    """Equal calls (RFC 8785) may be written in several ways; people saw one of them."""
    runner = Noting(tools[1])
    desk = await opened(runner=runner)
    work = await desk.session()
    await work.approved("counter__slow", seconds=approved)
    assert (await work.invoke("counter__slow", seconds=sent)).status == "succeeded"
    assert runner.sent == [json.dumps({"seconds": approved})]
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_an_approval_does_not_carry_over_to_other_arguments(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    command = cmd.InvokeTool(**work.ids, proposal_id=proposal_id, arguments={"account": "acme", "cents": 500})
    with pytest.raises(InvalidInput) as mismatch:
        await desk.gate.handle(AGENT, command)
    assert mismatch.value.error_code == "proposal_mismatch"
    assert (await work.invoke("counter__charge", account="acme", cents=500)).status == "pending_approval"
    other = await desk.session()
    assert (await other.invoke("counter__charge", account="acme", cents=5)).status == "pending_approval"
    with pytest.raises(NotFound):
        await other.run(proposal_id)
    assert upstream.calls() == []


@pytest.mark.guarantee("G3")
async def test_an_approval_expires(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    desk.clock.wait(86_400 - 60)
    again = await desk.session()
    late = await again.approved("counter__charge", account="acme", cents=5)
    desk.clock.wait(120)  # the first approval is older than 24 hours, and so is its invocation
    with pytest.raises(Denied):
        await work.run(proposal_id)
    desk.clock.wait(86_400)
    with pytest.raises(Denied):
        await again.run(late)
    assert upstream.calls() == []


@pytest.mark.guarantee("G10")
async def test_bad_input_changes_nothing(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    before = await desk.whole_log()
    with pytest.raises(InvalidInput) as invalid:
        await work.invoke("counter__charge", account="acme", cents="many")
    assert invalid.value.error_code == "invalid_arguments"
    assert invalid.value.detail["problems"][0]["pointer"] == "/cents"
    with pytest.raises(NotFound) as unknown:
        await work.invoke("counter__nothing")
    assert unknown.value.error_code == "unknown_tool"
    with pytest.raises(NotFound):
        await work.run("prop_nobody")
    with pytest.raises(InvalidInput):
        await desk.gate.handle(AGENT, cmd.InvokeTool(**work.ids))
    assert [e.as_json()["next_step"] for e in (invalid.value, unknown.value)]
    assert await desk.whole_log() == before
    assert upstream.calls() == []


async def test_a_dry_run_executes_nothing_and_asks_whom_it_would_ask(desk: Desk, upstream: Counting) -> None:
    work = await desk.session(dry_run=True)
    for tool, arguments in (
        ("counter__read", {"what": "x"}),
        ("counter__charge", {"account": "acme", "cents": 5}),
    ):
        outcome = await work.invoke(tool, **arguments)
        if outcome.status == "pending_approval":
            request = await work.ask(outcome.proposal_id)
            await desk.decide(request.approval_id)
            assert (await desk.last(work.workflow_id, "APPROVAL_REQUESTED"))["request"]["dry_run"]
            outcome = await work.run(outcome.proposal_id)
        assert outcome.status == "dry_run"
    assert upstream.calls() == []
    assert (await desk.last(work.workflow_id, "TOOL_INVOKE"))["dry_run"]
    assert "APPROVAL_REQUESTED" in await desk.types(work.workflow_id)
    await desk.check_record()
