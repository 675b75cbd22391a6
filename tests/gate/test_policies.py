"""Policies at the gate: deny by default, decide anew after every change, and what no policy set can permit."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.errors import Denied, Refused
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.policies.shipped import shipped_files
from charter.server.evaluator import PolicySets
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.gate.test_effects import Changed
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, CAT, OTHER_AGENT, Desk

pytestmark = pytest.mark.anyio

PERMISSIVE = '@id("everything") permit (principal, action, resource);\n'
NOTHING = '@id("nothing") forbid (principal, action, resource);\n'
TWO = """
@id("two-people") @obligation("require_approval") @approvers("2") @reason("Two people agree.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
when { resource.side_effects != "none" } unless { context.approved.contains("any:2") };
"""
ERRS = """
@id("stumbles") forbid (principal, action in Charter::Action::"tool.invoke", resource)
when { context.calls_used + 9223372036854775807 > 0 && context.calls_used > 0 };
"""


def folder(path: Path, **files: str) -> Path:
    """A policy folder; ``authorise`` and ``obligations`` are texts."""
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.cedar").write_text(text)
    return path


def shipped(path: Path, **more: str) -> Path:
    """The shipped policies and more."""
    files = {name.removesuffix(".cedar"): text for name, text in shipped_files().items() if name.endswith(".cedar")}
    return folder(path, **files, **more)


@pytest.mark.guarantee("G2")
async def test_a_policy_set_without_a_permit_denies(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    policies = PolicySets(folder(tmp_path / "p", authorise=NOTHING), None, tools[0].all())
    desk = await opened(policies=policies)
    with pytest.raises(Denied) as denied:
        await desk.start()
    assert denied.value.detail["policy_ids"] == ["nothing"]
    assert (await desk.last("tenant:default", "POLICY_DECISION"))["verdict"] == "deny"


@pytest.mark.guarantee("G2")
async def test_a_policy_that_errs_denies_even_where_it_would_forbid(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    policies = PolicySets(shipped(tmp_path / "p", authorise_more=ERRS), None, tools[0].all())
    desk = await opened(policies=policies)
    work = await desk.session()
    assert (await work.invoke("counter__read", what="x")).status == "succeeded"
    with pytest.raises(Denied) as denied:  # a call was used: the sum overflows now
        await work.invoke("counter__read", what="x")
    assert denied.value.error_code == "policy_error"
    assert "stumbles" in denied.value.message
    assert len(upstream.calls()) == 1


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("G4")
@pytest.mark.guarantee("G9")
async def test_no_policy_set_opens_what_the_guarantees_close(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    policies = PolicySets(folder(tmp_path / "p", authorise=PERMISSIVE, obligations=TWO), None, tools[0].all())
    desk = await opened(policies=policies)
    work = await desk.session()
    command = cmd.InvokeTool(**work.ids, tool="counter__read", arguments={"what": "x"})
    nowhere = cmd.InvokeTool(workflow_id=None, agent_invocation_id=None, tool="counter__read", arguments={"what": "x"})
    made_up = command.model_copy(update={"agent_invocation_id": "inv_made_up"})
    foreign = AGENT.model_copy(update={"tenant": "other"})
    ended = await desk.session()
    await ended.cancel()
    for caller, asked in (
        (AGENT, nowhere),
        (AGENT, made_up),
        (OTHER_AGENT, command),
        (Principal(id="svc", kind="service", roles=("charter",)), command),
        (foreign, command),
        (AGENT, command.model_copy(update=ended.ids)),
    ):
        with pytest.raises(Denied):
            await desk.gate.handle(caller, asked)
    with pytest.raises(Denied):
        await desk.gate.handle(OTHER_AGENT, cmd.CompleteStep(**work.ids, output={}))
    _, approval_id = await work.asked("counter__charge", account="acme", cents=5)
    for nobody in (AGENT, OTHER_AGENT, Principal(id="svc", kind="service")):
        with pytest.raises(Denied):
            await desk.decide(approval_id, by=nobody, channel="api")
    assert upstream.calls() == []
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_an_approval_under_the_old_policies_is_judged_by_the_new_ones(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    where = shipped(tmp_path / "p")
    policies = PolicySets(where, None, tools[0].all())
    desk = await opened(policies=policies)
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    (where / "obligations_more.cedar").write_text(TWO)
    policies.reload(tools[0].all())
    pending = await work.run(proposal_id)
    assert (pending.status, pending.proposal.requirements[0].approvers) == ("pending_approval", 2)
    asked = await work.ask(proposal_id)
    assert asked.asked_now, "what one person approved no longer suffices"
    assert asked.approval_id != pending.proposal.approval_id
    await desk.decide(asked.approval_id)
    assert (await work.run(proposal_id)).status == "pending_approval"
    await desk.decide(asked.approval_id, by=CAT)
    (where / "authorise_more.cedar").write_text(
        '@id("no-charges") forbid (principal, action in Charter::Action::"tool.invoke", resource) '
        'when { resource.risk == "high" };'
    )
    policies.reload(tools[0].all())
    with pytest.raises(Denied) as denied:
        await work.run(proposal_id)
    assert denied.value.detail["policy_ids"] == ["no-charges"]
    assert upstream.calls() == []
    (where / "authorise_more.cedar").unlink()
    policies.reload(tools[0].all())
    assert (await work.run(proposal_id)).status == "succeeded"
    hashes = {e.data["policy_set_hash"] for e in await desk.events(work.workflow_id) if e.type == "POLICY_DECISION"}
    assert len(hashes) == 3, "each decision names the set that made it"
    await desk.check_record()


async def test_what_a_candidate_set_would_have_decided_is_recorded_and_does_nothing(
    opened: Open, tmp_path: Path, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    shadow = folder(tmp_path / "candidate", authorise=NOTHING)
    desk = await opened(policies=PolicySets(None, shadow, tools[0].all()))
    work = await desk.session()
    assert (await work.invoke("counter__read", what="x")).status == "succeeded"
    recorded = await desk.last(work.workflow_id, "POLICY_DECISION")
    assert recorded["verdict"] == "permit"
    assert recorded["shadow"]["verdict"] == "deny"
    assert recorded["shadow"]["policy_set_hash"] != recorded["policy_set_hash"]


@pytest.mark.guarantee("G3")
async def test_a_quarantined_tool_is_denied_with_what_changed(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    desk = await opened()
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    changed = await opened(tools=Changed(tools[0], "counter__charge", quarantined=True))
    for attempt in (
        work.at(changed).run(proposal_id),
        work.at(changed).invoke("counter__charge", account="a", cents=1),
    ):
        with pytest.raises(Denied) as denied:
            await attempt
        assert denied.value.error_code == "tool_quarantined"
        assert "-old\n+new" in denied.value.message
        assert "charter tools pin counter__charge" in denied.value.next_step
    view = {view.name: view for view in await changed.queries.tools(AGENT, work.workflow_id, work.invocation_id)}
    assert view["counter__charge"].approval == "unavailable"
    assert upstream.calls() == []


@pytest.mark.guarantee("G3")
async def test_an_approval_does_not_carry_over_to_a_new_definition(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    desk = await opened()
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", account="acme", cents=5)
    repinned = work.at(await opened(tools=Changed(tools[0], "counter__charge", quarantined=False)))
    with pytest.raises(Refused) as refused:
        await repinned.run(proposal_id)
    assert refused.value.error_code == "definition_changed"
    assert (await repinned.invoke("counter__charge", account="acme", cents=5)).status == "pending_approval"
    assert upstream.calls() == []


async def test_a_tool_whose_pin_was_changed_by_hand_in_the_last_moment_does_not_run(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    """The runner looks at the pin once more: here the gate's tools and the registry do not agree."""
    desk: Desk = await opened(tools=Changed(tools[0], "counter__read", quarantined=False))
    outcome = await (await desk.session()).invoke("counter__read", what="x")
    assert (outcome.status, outcome.error_code) == ("failed", "tool_changed")
    assert upstream.calls() == []
