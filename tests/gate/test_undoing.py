"""Undoing through the gate: by a request, a run of another template, an agent; all of it decided by the policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charter.errors import CharterError
from charter.model import commands as cmd
from tests.gate.conftest import Open
from tests.gate.test_external import external, ran
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, Desk, Work, template
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


def read(what: str) -> dict[str, Any]:
    return {"type": "action", "tool": "counter__read", "arguments": {"what": what}}


PAY = {"id": "pay", **read("paid"), "compensate": {"step": "undo"}}
AGREE = {"id": "agree", "type": "approval", "question": "Go on?"}


async def cancelled(desk: Desk) -> Any:
    """A run of ``flow`` that has paid and is then cancelled, as far as it comes without anybody."""
    run = await desk.start("flow")
    await desk.engine.settle()
    await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id))
    await desk.engine.settle()
    return await desk.queries.workflow(AGENT, run.workflow_id)


async def test_a_run_of_another_template_undoes_a_step_and_is_on_both_records(opened: Open, upstream: Counting) -> None:
    undo = {"id": "undo", "type": "workflow", "template": "refund", "input": {"of": "{{ steps.pay.status }}"}}
    refund = template("refund", {"id": "back", **read("{{ trigger.of }}")})
    desk = await opened(templates=(template("flow", PAY, undo, AGREE), refund))
    run = await desk.start("flow")
    await desk.engine.settle()
    await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id))
    other = await opened(templates=(refund,))  # that process dies, and another one undoes
    await other.engine.settle()
    ended = await other.queries.workflow(AGENT, run.workflow_id)
    assert (ended.status, ended.steps["undo:pay"]) == ("cancelled", "completed")
    assert (await desk.last(ended.workflow_id, "WORKFLOW_CANCELLED"))["compensated"] == ["pay"]
    child = await desk.queries.workflow(AGENT, ended.children["undo:pay"])
    assert (child.status, child.parent_workflow_id) == ("completed", ended.workflow_id)
    assert [call["what"] for call in upstream.calls()] == ["paid", "completed"]
    assert "PARENT_TOLD" in await desk.types(child.workflow_id)
    await desk.check_record()


async def test_an_agent_undoes_a_step_by_governed_calls_and_by_no_others(opened: Open, upstream: Counting) -> None:
    undo = {"id": "undo", "type": "agent", "allowed_tools": ["counter__write_idempotent", "counter__charge"]}
    desk = await opened(templates=(template("flow", PAY, {**undo, "output_schema": {"required": ["id"]}}, AGREE),))
    held = await cancelled(desk)
    assert (held.status, held.steps["undo:pay"], held.allowed_tools) == (
        "compensating",
        "open",
        tuple(undo["allowed_tools"]),
    )
    work = Work(desk, held.workflow_id, held.invocations[0].agent_invocation_id)
    told = (await desk.queries.actions(AGENT, held.workflow_id)).invocations[0]
    may = {item.name: item.may for item in (*told.verbs, *told.tools)}
    assert (may["counter__write_idempotent"], may["counter__read"], may["complete_step"]) == (
        "needs_approval",
        "no",
        "yes",
    )
    described = {tool.name for tool in await desk.queries.tools(AGENT, held.workflow_id, work.invocation_id)}
    assert described == set(undo["allowed_tools"])
    with pytest.raises(CharterError) as refused:
        await work.invoke("counter__read", what="more")
    assert refused.value.error_code == "tool_not_allowed"
    assert (await work.invoke("counter__write_idempotent", what="a", value="1")).status == "pending_approval"
    assert len(upstream.calls()) == 1, "people are asked, as elsewhere"
    await work.run(await work.approved("counter__write_idempotent", what="a", value="1"))
    with pytest.raises(CharterError):
        await work.complete({})  # its schema asks for an id
    again = await opened(templates=())  # another process goes on with it
    done = await work.at(again).complete({"id": 7})
    assert (done.step_id, done.status, done.workflow.status) == ("undo:pay", "completed", "cancelled")
    assert (await desk.last(held.workflow_id, "WORKFLOW_CANCELLED"))["compensated"] == ["pay"]
    with pytest.raises(CharterError):
        await work.invoke("counter__write_idempotent", what="a", value="1")
    await desk.check_record()
