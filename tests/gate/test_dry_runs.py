"""Whether a run is a dry run is said at its start, is on record there, and nothing later can change it."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from charter.audit.envelope import parse_leaf
from charter.errors import Conflict
from charter.model import commands as cmd
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, BOB, Desk


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
    if not dry:
        request = await work.ask(proposal.proposal_id)
        await desk.decide(request.approval_id, by=BOB)
    outcome = await work.run(proposal.proposal_id)
    assert (outcome.status == "dry_run") is dry
    assert len(upstream.calls()) == (0 if dry else 1)
    assert (await desk.last(work.workflow_id, "TOOL_INVOKE")).get("dry_run", False) is dry
    assert (await desk.last(work.workflow_id, "WORKFLOW_STARTED")).get("dry_run", False) is dry
    assert parse_leaf((await desk.store.load("default", work.workflow_id))[0].leaf).type == "WORKFLOW_STARTED"
    await desk.check_record()
