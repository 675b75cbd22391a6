"""Whether a run is a dry run is said at its start, is on record there, and nothing later can change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from charter.audit.envelope import parse_leaf
from charter.errors import Conflict, Misconfigured
from charter.model import commands as cmd
from charter.model.fixture import Fixture, Fixtures
from charter.server.fixture_file import read_fixtures
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, Desk, template
from tests.outside import outbound, outside_desk

pytestmark = pytest.mark.anyio


def test_only_a_start_can_say_dry_run() -> None:
    says = [command.__name__ for command in get_args(cmd.Command) if "dry_run" in command.model_fields]
    assert says == ["StartWorkflow"]
    ids = {"workflow_id": "wf_1", "agent_invocation_id": "inv_1"}
    with pytest.raises(ValidationError):
        cmd.InvokeTool.model_validate({**ids, "tool": "counter__charge", "arguments": {}, "dry_run": False})


@pytest.mark.parametrize("dry", [True, False])
async def test_what_was_reviewed_runs_as_it_was_started(desk: Desk, upstream: Counting, dry: bool) -> None:
    work = await desk.session(dry_run=dry, idempotency_key="once")
    proposal = await work.propose("counter__charge", account="acme", cents=5)
    with pytest.raises(Conflict):  # the same start, said to be the other kind, is another start
        await desk.start(by=AGENT, dry_run=not dry, idempotency_key="once")
    request = await work.ask(proposal.proposal_id)
    await desk.decide(request.approval_id, by=BOB)
    outcome = await work.run(proposal.proposal_id)
    assert (outcome.status == "dry_run") is dry
    assert len(upstream.calls()) == (0 if dry else 1)
    assert (await desk.last(work.workflow_id, "TOOL_INVOKE")).get("dry_run", False) is dry
    assert (await desk.last(work.workflow_id, "WORKFLOW_STARTED")).get("dry_run", False) is dry
    assert parse_leaf((await desk.store.load("default", work.workflow_id))[0].leaf).type == "WORKFLOW_STARTED"
    await desk.check_record()


# -- what answers


def answers(**given: Any) -> Any:
    return Fixtures.model_validate({"answers": given}).answers


READS = (
    {"id": "look", "type": "action", "tool": "counter__read", "arguments": {"what": "x"}},
    {
        "id": "until",
        "type": "wait",
        "poll": {"tool": "counter__read", "arguments": {"what": "y"}, "until": "result.ready", "every_seconds": 60},
    },
)


async def test_fixtures_answer_by_step_and_by_tool_each_call_with_the_next_of_a_list(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    polled = ({"output": {"ready": False}}, {"output": {"ready": True}})
    given = answers(**{"flow/until": polled, "counter__read": {"output": {"ready": None, "is": "recorded"}}})
    runner = Runner(Registry(tuple, Sources({})), None, given)
    flow = template(
        "flow", *READS, output={"look": "{{ steps.look.output }}", "polls": "{{ steps.until.output.polls }}"}
    )
    desk = await opened(templates=(flow,), runner=runner)
    run = await desk.start("flow", dry_run=True)
    await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "timer"
    desk.clock.wait(61)
    await desk.engine.settle()
    done = await desk.queries.workflow(ANN, run.workflow_id)
    assert (done.status, done.output) == ("completed", {"look": {"ready": None, "is": "recorded"}, "polls": 2})
    assert upstream.calls() == []
    await desk.check_record()


async def test_a_fixture_may_fail(opened: Open, upstream: Counting) -> None:
    runner = Runner(Registry(tuple, Sources({})), None, answers(counter__read={"error": "No.", "ran": "no"}))
    desk = await opened(templates=(template("flow", READS[0]),), runner=runner)
    run = await desk.start("flow", dry_run=True)
    await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "failed"
    assert upstream.calls() == []


CALL = {
    "id": "call",
    "type": "external",
    "url": "https://nowhere.invalid/",
    "risk": "low",
    "success_condition": "response.body.ok",
    "extract": {"score": "response.body.score"},
}


@pytest.mark.parametrize(
    ("given", "status", "output"),
    [
        ({}, "completed", {"status": 200, "score": None}),
        (
            {"flow/call": {"output": {"status": 200, "headers": {}, "body": {"ok": True, "score": 7}}}},
            "completed",
            {"status": 200, "score": 7},
        ),
        ({"flow/call": {"output": {"status": 200, "headers": {}, "body": {"ok": False}}}}, "failed", None),
    ],
)
async def test_what_an_external_step_would_be_answered_is_judged_where_a_fixture_says_it(
    tmp_path: Path, given: dict[str, Any], status: str, output: Any
) -> None:
    flow = template("flow", CALL, output="{{ steps.call.output }}")
    async with outside_desk(tmp_path / "db", (flow,), outbound(), fixtures=answers(**given)) as desk:
        run = await desk.start("flow", dry_run=True)
        await desk.engine.settle()
        done = await desk.queries.workflow(ANN, run.workflow_id)
        assert (done.status, done.output) == (status, output)
        await desk.check_record()


async def test_what_a_callback_would_have_brought_is_null(tmp_path: Path) -> None:
    step = {**CALL, "callback": {"extract": {"verdict": "callback.body.verdict"}}}
    flow = template("flow", step, output="{{ steps.call.output }}")
    async with outside_desk(tmp_path / "db", (flow,), outbound()) as desk:
        run = await desk.start("flow", dry_run=True)
        await desk.engine.settle()
        done = await desk.queries.workflow(ANN, run.workflow_id)
        assert (done.status, done.output) == ("completed", {"status": 200, "score": None, "verdict": None})


async def test_a_dry_run_uses_no_grant_up(desk: Desk, upstream: Counting) -> None:
    real = await desk.session(case_id="case-1")
    await desk.grant(real.workflow_id, "counter__write_idempotent", uses=1, case_id="case-1")
    for dry in (True, True, False):
        work = await desk.session(case_id="case-1", dry_run=dry)
        outcome = await work.invoke("counter__write_idempotent", what="a", value="b")
        assert outcome.status == ("dry_run" if dry else "succeeded")
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.parametrize(
    "text", ["- a list", "counter__read: {outptu: 1}", "counter__read: {error: a, ran: perhaps}", "{"]
)
def test_a_file_of_fixtures_that_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fixtures.yaml"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"fixtures\.yaml") as wrong:
        read_fixtures(path)
    assert wrong.value.error_code == "bad_fixtures"
    with pytest.raises(Misconfigured):
        read_fixtures(tmp_path / "none.yaml")
    path.write_text("counter__read:\n  - {output: {a: 1}}\n  - {text: so}\n")
    assert read_fixtures(path) == {"counter__read": (Fixture(output={"a": 1}), Fixture(text="so"))}
    assert read_fixtures(None) == {}
