"""Tenants do not meet: another tenant's ids are ids of nothing."""

from __future__ import annotations

import pytest

from charter.errors import Denied, NotFound
from charter.model import commands as cmd
from charter.model.principal import service
from charter.store.port import Filter, Page
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, BOB, OPS, Desk, Work

pytestmark = pytest.mark.anyio


@pytest.mark.guarantee("G9")
async def test_nothing_of_a_tenant_can_be_seen_or_moved_by_another_with_the_same_names(
    desk: Desk, upstream: Counting
) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked("counter__charge", account="acme", cents=5)
    grant_id = await desk.grant(work.workflow_id, "counter__write_idempotent")
    before = await desk.whole_log()
    agent, bob, ops = (who.model_copy(update={"tenant": "other"}) for who in (AGENT, BOB, OPS))
    foreign = Work(desk, work.workflow_id, work.invocation_id, agent)
    bounds = (await desk.last(work.workflow_id, "GRANT_GIVEN"))["bounds"]
    give = cmd.GiveGrant.model_validate({"workflow_id": work.workflow_id, "bounds": bounds, "channel": "cli"})
    for attempt in (
        foreign.invoke("counter__read", what="x"),
        foreign.run(proposal_id),
        foreign.ask(proposal_id),
        foreign.complete(),
        foreign.cancel(by=ops),
        foreign.context(),
        desk.gate.handle(foreign.by, cmd.InvokeBatch.model_validate({**foreign.ids, "proposal_ids": [proposal_id]})),
        desk.queries.actions(ops, work.workflow_id),
        desk.gate.handle(ops, cmd.AdvanceWorkflow(workflow_id=work.workflow_id)),
        desk.decide(approval_id, by=bob),
        desk.queries.approval(bob, approval_id),
        desk.queries.events(ops, work.workflow_id),
        desk.resolve(work.workflow_id, "eff_1", "ran", by=ops),
        desk.gate.handle(bob, give),
        desk.gate.handle(bob, cmd.RevokeGrant(workflow_id=work.workflow_id, grant_id=grant_id)),
        desk.gate.handle(service("engine", "other"), cmd.AdvanceWorkflow(workflow_id=work.workflow_id)),
    ):
        with pytest.raises((Denied, NotFound)) as nothing:
            await attempt
        assert "acme" not in str(nothing.value.as_json())
    assert await desk.queries.approvals(bob, Filter(), Page()) == ([], None)
    assert await desk.queries.workflows(ops, Filter(), Page()) == ([], None)
    assert await desk.whole_log() == before
    assert upstream.calls() == []
    assert {row.tenant for row in await desk.whole_log("other")} == {"other"}
    await desk.check_record()


@pytest.mark.guarantee("G9")
async def test_the_same_key_and_case_in_two_tenants_are_two_runs_and_two_cases(desk: Desk) -> None:
    agent, bob = (who.model_copy(update={"tenant": "other"}) for who in (AGENT, BOB))
    ours = await desk.start(idempotency_key="k", case_id="7")
    theirs = await desk.start(by=agent, idempotency_key="k", case_id="7")
    assert ours.workflow_id != theirs.workflow_id
    await desk.grant(theirs.workflow_id, "counter__write_idempotent", case_id="7", by=bob)
    work = Work(desk, ours.workflow_id, ours.invocations[0].agent_invocation_id)
    assert (await work.invoke("counter__write_idempotent", what="a", value="1")).status == "pending_approval"
