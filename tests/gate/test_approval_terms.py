"""Approvals on real parts: races, ended runs, restarts, delegation and agents that the shipped policies do not let decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.errors import CharterError, Denied, NotFound, Refused
from charter.model import commands as cmd
from charter.model.approval import Signature
from charter.model.principal import Principal
from charter.policies.shipped import shipped_sources
from charter.server.evaluator import PolicySets
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, CAT, OPS, Desk, template

pytestmark = pytest.mark.anyio

HOUR = 3600
DORA = Principal(id="dora", kind="human")
REVIEWER = Principal(id="agent:reviewer", kind="agent", roles=("agent-approver",), acts_for="rita")


def agree(**more: Any) -> dict[str, Any]:
    return {"id": "agree", "type": "approval", "question": "Go?", **more}


GO = {"id": "go", "type": "action", "tool": "counter__read", "arguments": {"what": "a"}}
PAIR = template("pair", agree(requirements=[{"role": "approver", "approvers": 2}]), GO)
SAVE = template("save", {**GO, "tool": "counter__write_idempotent", "arguments": {"what": "a", "value": "1"}})


async def asked(desk: Desk, workflow_id: str) -> str:
    return str((await desk.last(workflow_id, "APPROVAL_REQUESTED"))["request"]["approval_id"])


async def outcome(work: Any) -> str:
    try:
        return str((await work).status)
    except CharterError as error:
        return error.error_code


async def at_once(*work: Any) -> list[str]:
    found: list[str] = [""] * len(work)

    async def one(index: int, each: Any) -> None:
        found[index] = await outcome(each)

    async with anyio.create_task_group() as group:
        for index, each in enumerate(work):
            group.start_soon(one, index, each)
    return found


@pytest.mark.guarantee("G4")
async def test_two_approvals_that_race_count_once_each_and_the_effect_runs_once(
    opened: Open, upstream: Counting
) -> None:
    desks = [await opened(templates=(PAIR,)) for _ in range(2)]
    run = await desks[0].start("pair")
    approval_id = await asked(desks[0], run.workflow_id)
    answers = [desk.decide(approval_id, by=by) for by in (BOB, CAT) for desk in desks]
    assert sorted(await at_once(*answers)) in (
        ["already_decided", "already_decided", "approved", "pending"],
        ["already_decided", "already_decided_by_you", "approved", "pending"],
    )
    async with anyio.create_task_group() as group:
        for desk in desks:
            group.start_soon(desk.engine.settle)
    assert (await desks[0].types(run.workflow_id)).count("APPROVAL_DECISION") == 2
    assert len(upstream.calls()) == 1
    await desks[0].check_record()


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("template_", [PAIR, SAVE], ids=["step", "action"])
async def test_an_approval_given_to_a_cancelled_run_runs_nothing(
    opened: Open, upstream: Counting, template_: Any
) -> None:
    desk = await opened(templates=(template_,))
    run = await desk.start(template_.name)
    await desk.engine.settle()
    approval_id = await asked(desk, run.workflow_id)
    await desk.gate.handle(OPS, cmd.CancelWorkflow(workflow_id=run.workflow_id))
    with pytest.raises(Refused) as refused:
        await desk.decide(approval_id)
    assert refused.value.error_code == "already_decided"
    with pytest.raises(Refused):
        await desk.gate.handle(BOB, cmd.DelegateApproval(approval_id=approval_id, to="dora", channel="cli"))
    await desk.engine.settle()
    assert upstream.calls() == []
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_an_approval_given_to_a_finished_run_runs_nothing(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked("counter__write_idempotent", what="a", value="1")
    await work.complete("done")
    with pytest.raises(Refused):
        await desk.decide(approval_id)
    with pytest.raises(CharterError):
        await work.run(proposal_id)
    assert upstream.calls() == []
    await desk.check_record()


TERMS = agree(
    requirements=[{"role": "approver"}],
    remind_after_seconds=HOUR,
    expires_after_seconds=3 * HOUR,
    on_timeout="escalate",
    escalations=[{"people": ["dora"], "expires_after_seconds": HOUR}],
)


@pytest.mark.guarantee("G6")
async def test_reminders_and_escalations_come_once_each_whichever_process_is_there(
    opened: Open, upstream: Counting
) -> None:
    terms = template("terms", TERMS)
    desk = await opened(templates=(terms,))
    run = await desk.start("terms")
    approval_id = await asked(desk, run.workflow_id)
    for hours in (1, 2, 3):
        desk.clock.wait(HOUR)
        for _ in range(2):
            desk = await opened(templates=(terms,))  # nothing in memory
            await desk.engine.settle()
        types = await desk.types(run.workflow_id)
        assert types.count("APPROVAL_REMINDED") == min(hours, 2)
        assert types.count("APPROVAL_ESCALATED") == (hours == 3)
    assert "dora" in (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].who
    assert (await desk.decide(approval_id, by=DORA)).status == "approved"
    assert await desk.store.next_wake() is None
    await desk.check_record()


async def test_when_even_they_do_not_answer_the_run_is_rejected(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(template("terms", TERMS),))
    run = await desk.start("terms")
    for seconds in (3 * HOUR, HOUR):
        desk.clock.wait(seconds + 1)
        await desk.engine.settle()
    assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "rejected"
    await desk.check_record()


@pytest.mark.guarantee("G4")
async def test_a_delegate_of_this_tenant_decides_and_sees_what_on(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(template("one", agree(requirements=[{"role": "approver"}])),))
    run = await desk.start("one")
    approval_id = await asked(desk, run.workflow_id)
    with pytest.raises(Denied):
        await desk.decide(approval_id, by=DORA)
    hand_over = cmd.DelegateApproval(approval_id=approval_id, to="dora", channel="cli", comment="away")
    with pytest.raises(CharterError):
        await desk.gate.handle(DORA, hand_over.model_copy(update={"to": "eve"}))
    await desk.gate.handle(BOB, hand_over)
    with pytest.raises(NotFound):
        await desk.decide(approval_id, by=DORA.model_copy(update={"tenant": "other"}))
    assert (await desk.queries.approval(DORA, approval_id)).delegations[0].delegated_by == "bob"
    assert (await desk.decide(approval_id, by=DORA)).status == "approved"
    assert (await desk.last(run.workflow_id, "APPROVAL_DECISION"))["on_behalf_of"] == ["bob"]
    await desk.check_record()


# -- agents that a policy lets decide

GRANT = """
@id("small") permit (principal is Charter::Agent, action == Charter::Action::"approval.decide", resource)
when { context has template && context.template like "refund@*" && context has step_id && context.step_id == "agree" &&
       resource.hasTag("cents") && resource.getTag("cents") >= 0 && resource.getTag("cents") <= 10000 };
@id("calls") permit (principal is Charter::Agent, action == Charter::Action::"approval.decide", resource)
when { resource has tool && resource.tool == "counter__charge" && resource.hasTag("cents") && resource.getTag("cents") <= 10 };
"""
AGENTS_COUNT = """
@id("charges-ask") @obligation("require_approval") @agents("true")
permit (principal, action in Charter::Action::"tool.invoke", resource) when { resource.risk == "high" }
unless { context.approved.contains("any:1") || context.approved.contains("agents:1") };
"""
REFUND = template("refund", agree(show={"cents": "{{ trigger.cents }}"}, amounts=["cents"]))
OTHER = template("other", agree(show={"cents": "{{ trigger.cents }}"}, amounts=["cents"]))


@pytest.fixture
def granting(tmp_path: Path, tools: tuple[Governed, Runner]) -> PolicySets:
    folder = tmp_path / "granting"
    folder.mkdir()
    for name, text in shipped_sources().authorise.items():
        (folder / name).write_text(text)
    (folder / "authorise-agents.cedar").write_text(GRANT)
    (folder / "obligations.cedar").write_text(AGENTS_COUNT)
    return PolicySets(folder, None, tools[0].all())


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("name", "cents", "by", "code"),
    [
        ("refund", 10_000, REVIEWER, "approved"),
        ("refund", 10_001, REVIEWER, "not_permitted"),
        ("refund", -1, REVIEWER, "not_permitted"),
        ("other", 1, REVIEWER, "not_permitted"),
        ("refund", 1, REVIEWER.model_copy(update={"roles": ("approver",)}), "agent_cannot_decide"),
        ("refund", 1, REVIEWER.model_copy(update={"acts_for": "ann"}), "own_action"),
        ("refund", 1, AGENT.model_copy(update={"roles": ("agent-approver",)}), "own_action"),
    ],
)
async def test_an_agent_decides_what_a_policy_grants_it_and_nothing_else(
    opened: Open, granting: PolicySets, name: str, cents: int, by: Principal, code: str
) -> None:
    desk = await opened(templates=(REFUND, OTHER), policies=granting)
    run = await desk.start(name, input={"cents": cents})
    approval_id = await asked(desk, run.workflow_id)
    signature = Signature(algorithm="EdDSA", key_id="k", value="c2ln")
    answer = desk.decide(approval_id, by=by, channel="api", comment="Within what I may.", signature=signature)
    assert await outcome(answer) == code
    if code == "approved":
        recorded = await desk.last(run.workflow_id, "APPROVAL_DECISION")
        assert (recorded["decided_by_kind"], recorded["comment"]) == ("agent", "Within what I may.")
        assert recorded["signature"] == signature.model_dump()
    else:
        assert "APPROVAL_DECISION" not in await desk.types(run.workflow_id)
    await desk.check_record()


@pytest.mark.guarantee("G4")
async def test_as_shipped_no_agent_decides_whatever_its_roles(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(REFUND,))
    run = await desk.start("refund", input={"cents": 1})
    boss = REVIEWER.model_copy(update={"roles": ("agent-approver", "approver", "admin")})
    with pytest.raises(Denied):
        await desk.decide(await asked(desk, run.workflow_id), by=boss, channel="api", comment="Fine.")


async def test_an_agents_yes_lets_a_call_run_where_both_policy_sets_take_it(
    opened: Open, granting: PolicySets, upstream: Counting
) -> None:
    desk = await opened(policies=granting)
    work = await desk.session()
    small, small_approval = await work.asked("counter__charge", account="acme", cents=10)
    large, large_approval = await work.asked("counter__charge", account="acme", cents=11)
    reason: dict[str, Any] = {"channel": "api", "comment": "It is little."}
    await desk.decide(small_approval, by=REVIEWER, **reason)
    with pytest.raises(Denied):
        await desk.decide(large_approval, by=REVIEWER, **reason)
    assert (await work.run(small)).status == "succeeded"
    assert (await work.run(large)).status == "pending_approval"
    assert [call["cents"] for call in upstream.calls()] == [10]
    await desk.check_record()


# -- terms that a policy sets for tool calls

TERMED = """
@id("named") @obligation("require_approval") @people("bob,cat") @within("PT10H") @remind("PT1H") @edit("false")
@escalate("PT4H") @escalate_role("chief")
permit (principal, action in Charter::Action::"tool.invoke", resource) when { resource.risk == "high" }
unless { context.approved.contains("=bob+cat:1") || context.approved.contains("chief:1") };
"""


async def test_a_policy_names_people_reminds_them_and_asks_others(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    folder = tmp_path / "termed"
    folder.mkdir()
    (folder / "authorise.cedar").write_text("\n".join(shipped_sources().authorise.values()))
    (folder / "obligations.cedar").write_text(TERMED)
    desk = await opened(policies=PolicySets(folder, None, tools[0].all()))
    work = await desk.session()
    charge = {"account": "acme", "cents": 5}
    proposal_id, approval_id = await work.asked("counter__charge", **charge)
    with pytest.raises(Refused) as refused:
        await desk.decide(approval_id, "edit", edited_arguments=charge)
    assert refused.value.error_code == "edit_not_allowed"
    await desk.decide(approval_id, by=BOB.model_copy(update={"id": "dan"}))  # an approver, and not one of the two
    assert (await work.run(proposal_id)).status == "pending_approval"
    boss = Principal(id="boss", kind="human", roles=("chief", "approver"))
    with pytest.raises(Refused) as early:
        await desk.decide(approval_id, by=boss)
    assert early.value.error_code == "not_your_turn"
    for _ in range(4):
        desk.clock.wait(HOUR + 1)
        await desk.engine.settle()
    types = await desk.types(work.workflow_id)
    assert (types.count("APPROVAL_REMINDED"), types.count("APPROVAL_ESCALATED")) == (3, 1)
    assert (await desk.decide(approval_id, by=boss)).status == "approved"
    assert (await work.run(proposal_id)).status == "succeeded"
    other, other_approval = await work.asked("counter__charge", account="acme", cents=6)
    assert (await desk.decide(other_approval, by=CAT)).status == "approved"
    assert (await work.run(other)).status == "succeeded"
    await desk.check_record()
