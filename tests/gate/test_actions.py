"""What an agent may do now, and why not the rest: each with a code, and true when it is tried."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import CharterError, Denied, NotFound
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.model.tool import Quarantine, ToolManifest
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, BOB, OPS, OTHER_AGENT, Desk, Work, template

pytestmark = pytest.mark.anyio

PHASE = template(
    "phase",
    {
        "id": "work",
        "type": "agent",
        "allowed_tools": ["counter__read", "counter__charge", "counter__huge", "counter__refuse"],
        "forbidden_tools": ["counter__hu*"],
        "calls": 2,
    },
)
TWO = template(
    "two",
    {"id": "one", "type": "agent", "allowed_tools": ["counter__read"]},
    {"id": "other", "type": "agent", "allowed_tools": ["counter__charge", "counter__read"], "needs": []},
)
SAMPLES: dict[str, dict[str, Any]] = {
    "counter__read": {"what": "a"},
    "counter__huge": {"size": 1},
    "counter__refuse": {},
    "counter__charge": {"account": "a", "cents": 1},
    "counter__write_idempotent": {"what": "a", "value": "b"},
    "counter__slow": {"seconds": 0},
    "counter__secret_echo": {"password": "p", "note": "n"},
}
STRANGER = Principal(id="mallory", kind="human")


async def told(desk: Desk, work: Work, by: Principal = AGENT, **more: Any) -> Any:
    return await desk.queries.actions(by, work.workflow_id, **more)


def of(items: Any) -> dict[str, tuple[str, str]]:
    return {item.name: (item.may, item.code) for item in items}


async def test_each_tool_and_verb_has_a_code_a_reason_and_a_next_step(opened: Open) -> None:
    desk = await opened(templates=(PHASE,))
    work = await desk.session(template="phase")
    before = await desk.types(work.workflow_id)
    found = await told(desk, work)
    [grant] = found.invocations
    assert (grant.agent_invocation_id, grant.step_id, grant.calls_left) == (work.invocation_id, "work", 2)
    tools = of(grant.tools)
    assert tools["counter__read"] == ("yes", "permitted")
    assert tools["counter__charge"] == ("needs_approval", "approval_required")
    assert tools["counter__huge"] == ("no", "tool_forbidden")
    assert tools["counter__slow"] == ("no", "tool_not_allowed")
    [charge] = [item for item in grant.tools if item.name == "counter__charge"]
    assert charge.approval_from == "1 person (by cli, console, api)"
    assert of(grant.verbs) == {
        "describe_tools": ("yes", "permitted"),
        "propose_action": ("yes", "permitted"),
        "request_approval": ("no", "nothing_to_request"),
        "invoke_tool": ("yes", "permitted"),
        "complete_step": ("yes", "permitted"),
    }
    assert of(found.verbs) == dict.fromkeys(
        ("get_workflow", "advance_workflow", "cancel_workflow"), ("yes", "permitted")
    )
    assert all(item.reason and item.next_step for item in (*grant.tools, *grant.verbs, *found.verbs))
    assert await desk.types(work.workflow_id) == before, "asking is not on record"


@pytest.mark.parametrize("state", ["open", "spent", "paused", "ended"])
async def test_what_it_says_of_a_tool_is_what_becomes_of_the_call(opened: Open, upstream: Counting, state: str) -> None:
    desk = await opened(templates=(PHASE,))
    work = await desk.session(template="phase")
    if state == "spent":
        await work.invoke("counter__read", what="1")
        await work.invoke("counter__read", what="2")
    elif state == "paused":
        await desk.gate.handle(OPS, cmd.PauseWorkflow(workflow_id=work.workflow_id))
    elif state == "ended":
        await work.cancel()
    said = of((await told(desk, work)).invocations[0].tools)
    assert said.keys() == SAMPLES.keys()
    for name, arguments in SAMPLES.items():
        may, code = said[name]
        if may == "yes" and name != "counter__read":
            continue  # it would use up the step's calls
        try:
            outcome = await work.invoke(name, **arguments)
            answered = {"succeeded": "permitted"}.get(outcome.status, outcome.error_code)
        except CharterError as error:
            answered = error.error_code
        first = "workflow_paused" if state == "paused" else {"tool_forbidden": "tool_not_allowed"}.get(code, code)
        assert answered == first, name


async def test_a_step_that_is_not_ones_own_says_so(opened: Open) -> None:
    desk = await opened(templates=(PHASE,))
    work = await desk.session(template="phase")
    with pytest.raises(Denied):
        await told(desk, work, OTHER_AGENT)
    with pytest.raises(Denied):
        await told(desk, work, STRANGER)
    with pytest.raises(NotFound):
        await told(desk, work, Principal(id=AGENT.id, kind="agent", tenant="other"))
    with pytest.raises(NotFound) as error:
        await told(desk, work, invocation_id="inv_nothing")
    assert error.value.error_code == "no_invocation"
    await work.complete()
    found = await told(desk, work)
    [nothing] = found.invocations
    assert nothing.agent_invocation_id is None
    assert {item.may for item in (*nothing.tools, *nothing.verbs)} == {"no"}
    assert set(of(nothing.verbs).values()) == {("no", "no_invocation")}
    assert of(found.verbs)["cancel_workflow"] == ("no", "workflow_ended")
    assert of(found.verbs)["get_workflow"] == ("yes", "permitted")


async def test_what_is_quarantined_or_away_says_so(opened: Open, tools: tuple[Governed, Runner]) -> None:
    desk = await opened(tools=Changed(tools[0]))
    away = {"counter__charge": "the upstream counter is not connected"}
    desk.gate.parts.unavailable = away.get
    work = await desk.session()
    tools_ = of((await told(desk, work)).invocations[0].tools)
    assert tools_["counter__read"] == ("no", "tool_quarantined")
    assert tools_["counter__charge"] == ("no", "upstream_unavailable")
    assert tools_["counter__refuse"] == ("yes", "permitted")
    only = await told(desk, work, names=["counter__refuse", "counter__nothing"])
    assert set(of(only.invocations[0].tools)) == {"counter__refuse"}


class Changed(Governed):
    """The tools, of which reading is quarantined."""

    def __init__(self, tools: Governed) -> None:
        self._tools = tools

    def find(self, name: str) -> ToolManifest | None:
        return self._tools.find(name)

    def quarantine(self, name: str) -> Quarantine | None:
        changed = name == "counter__read"
        return Quarantine(tool=name, pinned_hash="a", offered_hash="b", diff="-a\n+b") if changed else None

    def all(self) -> tuple[ToolManifest, ...]:
        return self._tools.all()


async def test_each_open_grant_is_told_of_and_get_workflow_names_the_tools_of_all(opened: Open) -> None:
    desk = await opened(templates=(TWO,))
    started = await desk.start("two")
    assert len(started.invocations) == 2
    assert started.allowed_tools == ("counter__read", "counter__charge")
    found = await desk.queries.actions(AGENT, started.workflow_id)
    by_step = {item.step_id: of(item.tools) for item in found.invocations}
    assert by_step["one"]["counter__charge"] == ("no", "tool_not_allowed")
    assert by_step["other"]["counter__charge"] == ("needs_approval", "approval_required")
    alone = await desk.queries.actions(AGENT, started.workflow_id, started.invocations[1].agent_invocation_id)
    assert [item.step_id for item in alone.invocations] == ["other"]


async def test_proposals_say_whether_they_may_run_and_who_is_waited_for(desk: Desk) -> None:
    work = await desk.session()
    fresh = (await work.propose("counter__charge", account="a", cents=1)).proposal_id
    asked, _ = await work.asked("counter__charge", account="a", cents=2)
    approved = await work.approved("counter__charge", account="a", cents=3)
    rejected, approval_id = await work.asked("counter__charge", account="a", cents=4)
    await desk.decide(approval_id, "reject")
    used = await work.approved("counter__charge", account="a", cents=5)
    await work.run(used)
    [grant] = (await told(desk, work)).invocations
    found = {item.proposal_id: item for item in grant.proposals}
    assert {key: (item.may, item.code) for key, item in found.items()} == {
        fresh: ("needs_approval", "approval_required"),
        asked: ("needs_approval", "approval_required"),
        approved: ("yes", "permitted"),
        rejected: ("no", "approval_rejected"),
    }
    assert found[asked].waits_for == "1 person (by cli, console, api)"
    assert (found[fresh].waits_for, found[fresh].approval_id) == (None, None)
    assert found[approved].expires_at
    assert of(grant.verbs)["request_approval"] == ("yes", "permitted")


async def test_an_operator_sees_the_agent_that_works_there(opened: Open) -> None:
    desk = await opened(templates=(PHASE,))
    work = await desk.session(template="phase")
    mine = await told(desk, work)
    theirs = await told(desk, work, OPS)
    assert theirs.agent == AGENT.id
    assert theirs == mine
    with pytest.raises(Denied):
        await told(desk, work, BOB)


@pytest.mark.parametrize("case_id", [None, "case-1"])
async def test_what_a_standing_grant_covers_is_told_while_it_does(desk: Desk, case_id: str | None) -> None:
    work = await desk.session(case_id="case-1")
    tool = "counter__write_idempotent"
    grant_id = await desk.grant(work.workflow_id, tool, uses=1, seconds=600, case_id=case_id)

    async def said() -> Any:
        [item] = (await told(desk, work, names=[tool])).invocations[0].tools
        assert item.may == "needs_approval"
        return item.reason

    assert f"{grant_id} (1 uses left)" in await said()
    await work.invoke(tool, what="a", value="b")
    assert "grant" not in await said()
    later = await desk.grant(work.workflow_id, tool, uses=1, seconds=600, case_id=case_id)
    assert later in await said()
    desk.clock.wait(601)
    assert "grant" not in await said()
