"""Standing grants: within bounds, so many times, until then, for one run or one case, and taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from charter.errors import CharterError, Denied, InvalidInput, NotFound
from charter.model import commands as cmd
from charter.model.principal import Channel, Principal
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, BOB, Desk

pytestmark = pytest.mark.anyio

WRITE = "counter__write_idempotent"
SMALL = {"properties": {"value": {"maxLength": 3}}, "required": ["value"]}


@pytest.mark.guarantee("G3")
async def test_a_grant_covers_calls_within_its_bounds_and_no_more_often_than_it_says(
    desk: Desk, upstream: Counting
) -> None:
    work = await desk.session()
    await desk.grant(work.workflow_id, WRITE, SMALL, uses=2)
    assert (await work.invoke(WRITE, what="a", value="long text")).status == "pending_approval"
    assert (await work.invoke("counter__slow", seconds=0)).status == "pending_approval"
    for n in (1, 2):
        assert (await work.invoke(WRITE, what="a", value=str(n))).status == "succeeded"
    assert (await work.invoke(WRITE, what="a", value="3")).status == "pending_approval"
    other = await desk.session()
    assert (await other.invoke(WRITE, what="a", value="1")).status == "pending_approval"
    assert len(upstream.calls()) == 2
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_a_grant_ends_with_its_time_and_when_it_is_taken_back(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    await desk.grant(work.workflow_id, WRITE, seconds=60)
    assert (await work.invoke(WRITE, what="a", value="1")).status == "succeeded"
    desk.clock.wait(61)
    assert (await work.invoke(WRITE, what="a", value="2")).status == "pending_approval"
    grant_id = await desk.grant(work.workflow_id, WRITE)
    revoke = cmd.RevokeGrant(workflow_id=work.workflow_id, grant_id=grant_id)
    with pytest.raises(Denied):
        await desk.gate.handle(AGENT, revoke)
    await desk.gate.handle(ANN, revoke)
    with pytest.raises(NotFound):
        await desk.gate.handle(ANN, revoke)
    assert (await work.invoke(WRITE, what="a", value="3")).status == "pending_approval"
    assert len(upstream.calls()) == 1


EVE = Principal(id="eve", kind="human")
EVES = Principal(id="agent:eves", kind="agent", roles=("agent",), acts_for="eve")


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("case", [None, "case 7"])
async def test_a_grant_never_covers_the_calls_of_who_gave_it(desk: Desk, upstream: Counting, case: str | None) -> None:
    work = await desk.session(by=EVE, case_id="case 7")
    await desk.grant(work.workflow_id, WRITE, by=EVE, case_id=case)
    await desk.grant(work.workflow_id, WRITE, by=EVE.model_copy(update={"id": "ＥVE", "roles": ("approver",)}))
    assert (await work.invoke(WRITE, what="a", value="1")).status == "pending_approval"
    assert not upstream.calls()
    await desk.grant(work.workflow_id, WRITE, by=BOB, case_id=case)
    assert (await work.invoke(WRITE, what="a", value="1")).status == "succeeded"
    await desk.check_record()


@pytest.mark.guarantee("G4")
async def test_a_grant_of_the_agent_s_person_covers_what_they_could_approve(desk: Desk, upstream: Counting) -> None:
    work = await desk.session(by=EVES)
    _, approval_id = await work.asked(WRITE, what="a", value="0")
    assert (await desk.decide(approval_id, by=EVE)).status == "approved"
    await desk.grant(work.workflow_id, WRITE, by=EVE)
    assert (await work.invoke(WRITE, what="a", value="1")).status == "succeeded"
    told = (await desk.last(work.workflow_id, "POLICY_DECISION"))["facts"]
    assert isinstance(told, dict)
    assert told["grant_given_by"] == "eve"  # on the call's own record
    await desk.check_record()


@pytest.mark.guarantee("G4")
async def test_a_case_s_grant_counts_only_in_runs_where_its_giver_may_decide(desk: Desk, upstream: Counting) -> None:
    """``case_id`` is a name that each caller chooses: it opens nobody's run to a stranger's grant, nor uses one up."""
    theirs = await desk.session(case_id="case 7")  # ann's agent's
    eves = await desk.session(by=EVES, case_id="case 7")
    grant_id = await desk.grant(eves.workflow_id, WRITE, by=EVE, uses=1, case_id="case 7")
    assert (await theirs.invoke(WRITE, what="a", value="1")).status == "pending_approval"
    left = {item.given.grant_id: item.uses_left for item in await desk.queries.grants(ANN, theirs.workflow_id)}
    assert left == {grant_id: 1}
    assert (await eves.invoke(WRITE, what="a", value="2")).status == "succeeded"
    await desk.grant(theirs.workflow_id, WRITE, by=BOB, uses=2, case_id="case 7")  # an approver decides in both
    for n, work in enumerate((theirs, eves)):
        assert (await work.invoke(WRITE, what="b", value=str(n))).status == "succeeded"
    assert len(upstream.calls()) == 3
    await desk.check_record()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("by", "channel", "tool"),
    [
        (AGENT, "cli", WRITE),  # an agent cannot permit itself anything
        (ANN, "elicitation", WRITE),  # a grant is many calls: not through the agent's client
        (Principal(id="sam", kind="human"), "cli", WRITE),
        (BOB, "cli", "counter__charge"),  # high risk is approved call by call
    ],
)
async def test_who_may_give_a_grant(desk: Desk, by: Principal, channel: Channel, tool: str) -> None:
    work = await desk.session()
    with pytest.raises(Denied):
        await desk.grant(work.workflow_id, tool, by=by, channel=channel, uses=5000)  # too many: not what it is told
    assert "GRANT_GIVEN" not in await desk.types(work.workflow_id)
    assert (await desk.last(work.workflow_id, "POLICY_DECISION"))["verdict"] == "deny"


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"uses": 101}, "grant_too_wide"),
        ({"seconds": 86_401}, "grant_too_wide"),
        ({"arguments": {"type": "nonsense"}}, None),
        ({"arguments": {"value": {"maxLength": 3}}}, "grant_bounds"),
        ({"case_id": "another case"}, "grant_bounds"),
    ],
)
async def test_a_grant_that_is_too_wide_or_makes_no_sense_is_not_given(
    desk: Desk, more: dict[str, Any], code: str | None
) -> None:
    work = await desk.session(case_id="case 7")
    before = await desk.whole_log()
    with pytest.raises(CharterError) as refused:
        await desk.grant(work.workflow_id, WRITE, **more)
    if code is not None:
        assert isinstance(refused.value, InvalidInput)
        assert refused.value.error_code == code
    assert await desk.whole_log() == before


@pytest.mark.guarantee("G3")
async def test_a_case_s_grant_covers_its_runs_and_no_other(desk: Desk, upstream: Counting) -> None:
    first, second = await desk.session(case_id="case 7"), await desk.session(case_id="case 7")
    stranger = await desk.session(case_id="case 8")
    grant_id = await desk.grant(first.workflow_id, WRITE, SMALL, uses=3, case_id="case 7")
    assert (await first.invoke(WRITE, what="a", value="1")).status == "succeeded"
    assert (await second.invoke(WRITE, what="a", value="2")).status == "succeeded"
    assert (await stranger.invoke(WRITE, what="a", value="3")).status == "pending_approval"
    await desk.gate.handle(ANN, cmd.RevokeGrant(workflow_id=second.workflow_id, grant_id=grant_id))
    assert (await first.invoke(WRITE, what="a", value="4")).status == "pending_approval"
    assert len(upstream.calls()) == 2
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_two_runs_in_two_processes_cannot_both_take_the_last_use(opened: Open, upstream: Counting) -> None:
    one, other = await opened(), await opened()
    first, second = await one.session(case_id="case 7"), await other.session(case_id="case 7")
    await one.grant(first.workflow_id, WRITE, uses=3, case_id="case 7")
    calls = [work.invoke(WRITE, what=f"{n}", value="1") for n in range(4) for work in (first, second)]
    statuses = [outcome.status for outcome in await asyncio.gather(*calls)]
    assert statuses.count("succeeded") == 3
    assert statuses.count("pending_approval") == 5
    assert len(upstream.calls()) == 3
    await one.check_record()
