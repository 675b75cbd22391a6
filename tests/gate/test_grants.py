"""Standing grants: within bounds, so many times, until then, for one run or one case, and taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from charter.errors import CharterError, Denied, InvalidInput, NotFound
from charter.model import commands as cmd
from charter.model.principal import Channel, Principal
from charter.model.template import Template
from charter.policies.shipped import shipped_sources
from charter.server.evaluator import PolicySets
from charter.store.port import Appended, Batch
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, CAT, Desk, template

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


@pytest.mark.guarantee("G3")
async def test_a_call_that_looked_before_the_grant_was_taken_back_does_not_run_after_it(
    opened: Open, upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await opened(), await opened()
    first, second = await one.session(case_id="case 7"), await other.session(case_id="case 7")
    grant_id = await one.grant(first.workflow_id, WRITE, uses=3, case_id="case 7")
    store = other.gate.parts.store
    append, looked, revoked = store.append, asyncio.Event(), asyncio.Event()

    async def late(batch: Batch) -> Appended:
        looked.set()
        await revoked.wait()
        return await append(batch)

    monkeypatch.setattr(store, "append", late)
    call = asyncio.create_task(second.invoke(WRITE, what="a", value="1"))
    await looked.wait()
    await one.gate.handle(ANN, cmd.RevokeGrant(workflow_id=first.workflow_id, grant_id=grant_id))
    revoked.set()
    assert (await call).status == "pending_approval"
    assert upstream.calls() == []
    (standing,) = await one.queries.grants(ANN, first.workflow_id)
    assert (standing.revoked, standing.uses_left) == (True, 3)
    await one.check_record()


# -- whoever's word lets a step pass has passed it

SAVE = {"id": "save", "type": "action", "tool": WRITE, "arguments": {"what": "a", "value": "1"}}
AGREE = {"id": "agree", "type": "approval", "question": "Go?", "distinct_from": ["save"]}
OPEN = {"id": "work", "type": "agent", "allowed_tools": ["*"]}
BY_ROLES = """
@id("legal-agrees") @obligation("require_approval") @role("legal") @reason("Legal agrees to what is written.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
when { resource.risk == "medium" } unless { context.granted || context.approved.contains("legal:1") };
"""
LEGAL = {"id": "agree", "type": "approval", "question": "Go?", "requirements": [{"role": "finance"}]}
BOTH = Principal(id="bea", kind="human", roles=("approver", "finance", "legal"))
ONE = Principal(id="fin", kind="human", roles=("approver", "finance"))


def of(*steps: dict[str, Any], separation: str = "roles") -> Template:
    return template("duties", *steps).model_copy(update={"separation_of_duties": separation})


async def asked(desk: Desk, workflow_id: str) -> str:
    return str((await desk.last(workflow_id, "APPROVAL_REQUESTED"))["request"]["approval_id"])


async def granted(desk: Desk, by: Principal = BOB, case: str | None = None) -> Any:
    """A run of ``duties`` at its first step, with a grant of this person's."""
    run = await desk.start("duties", case_id="case 7")
    await desk.grant(run.workflow_id, WRITE, by=by, case_id=case)
    ids = {"workflow_id": run.workflow_id, "agent_invocation_id": run.invocations[0].agent_invocation_id}
    await desk.gate.handle(AGENT, cmd.CompleteStep(**ids))
    await desk.engine.settle()
    return run


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("case", [None, "case 7"])
@pytest.mark.parametrize("separation", ["all", "distinct"])
async def test_who_gave_the_grant_under_which_a_step_ran_has_passed_that_step(
    opened: Open, upstream: Counting, case: str | None, separation: str
) -> None:
    agree = AGREE if separation == "distinct" else {**AGREE, "distinct_from": None}
    desk = await opened(templates=(of(OPEN, SAVE, agree, separation="all" if separation == "all" else "none"),))
    run = await granted(desk, case=case)
    assert len(upstream.calls()) == 1
    assert (await desk.last(run.workflow_id, "TOOL_INVOKE"))["under_grant"]["given_by"] == "bob"
    approval_id = await asked(desk, run.workflow_id)
    with pytest.raises(CharterError) as refused:
        await desk.decide(approval_id, by=BOB)
    assert refused.value.error_code == "duties_separate"
    desk = await opened(templates=(of(OPEN, SAVE, agree),))  # as another process folds it from the log
    with pytest.raises(CharterError):
        await desk.decide(approval_id, by=BOB.model_copy(update={"id": "ＢOB"}))
    assert (await desk.decide(approval_id, by=CAT)).status == "approved"
    await desk.check_record()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("channel", ["cli", "prompt", "elicitation"])
async def test_the_grant_of_who_let_another_step_pass_does_not_count(
    opened: Open, upstream: Counting, channel: Channel
) -> None:
    """However they answered: on the command line, or through the client of the agent."""
    agree = {**AGREE, "distinct_from": None}
    desk = await opened(templates=(of(OPEN, agree, SAVE, separation="all"),))
    run = await granted(desk)
    await desk.decide(await asked(desk, run.workflow_id), by=BOB, channel=channel)
    await desk.engine.settle()
    assert upstream.calls() == []
    approval_id = await asked(desk, run.workflow_id)
    with pytest.raises(CharterError) as refused:
        await desk.decide(approval_id, by=BOB)
    assert refused.value.error_code == "duties_separate"
    await desk.decide(approval_id, by=CAT)
    await desk.engine.settle()
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.guarantee("G4")
async def test_one_person_s_grant_lets_no_two_steps_pass(opened: Open, upstream: Counting) -> None:
    again = {**SAVE, "id": "again", "arguments": {"what": "b", "value": "2"}}
    desk = await opened(templates=(of(OPEN, SAVE, again, separation="all"),))
    run = await granted(desk)
    assert len(upstream.calls()) == 1
    approval_id = await asked(desk, run.workflow_id)  # the second write is nobody's yet
    with pytest.raises(CharterError) as refused:
        await desk.decide(approval_id, by=BOB)
    assert refused.value.error_code == "duties_separate"
    await desk.decide(approval_id, by=CAT)
    await desk.engine.settle()
    assert len(upstream.calls()) == 2
    await desk.check_record()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("separation", ["roles", "none"])
async def test_by_roles_a_grant_for_one_role_and_an_answer_for_another_take_two_people_unless_the_template_allows_it(
    opened: Open, upstream: Counting, tools: tuple[Governed, Runner], separation: str, tmp_path: Path
) -> None:
    (tmp_path / "authorise.cedar").write_text("\n".join(shipped_sources().authorise.values()))
    (tmp_path / "obligations.cedar").write_text(BY_ROLES)
    by_roles = PolicySets(tmp_path, None, tools[0].all())
    desk = await opened(templates=(of(OPEN, SAVE, LEGAL, separation=separation),), policies=by_roles)
    run = await granted(desk, by=BOTH)
    assert len(upstream.calls()) == 1
    approval_id = await asked(desk, run.workflow_id)
    if separation == "none":
        assert (await desk.decide(approval_id, by=BOTH)).status == "approved"
    else:
        with pytest.raises(CharterError) as refused:
            await desk.decide(approval_id, by=BOTH)
        assert refused.value.error_code == "duties_separate"
        assert (await desk.decide(approval_id, by=ONE)).status == "approved"
    await desk.check_record()
