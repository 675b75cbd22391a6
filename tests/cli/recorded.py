"""A folder with a record: two governed runs with real calls, made in this process through the real gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio

from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.server.app import Charter, running
from charter.server.settings import load_settings
from tests.cli.support import Project

IDE = Principal(id="ide", kind="agent", roles=("agent",), acts_for="ann")
CAROL = Principal(id="carol", kind="human", roles=("approver",))
WRITE = {"name": "plan", "text": "Call them on Monday.\n"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """``done`` ended well; ``waiting`` has a pending approval."""

    project: Project
    done: str
    waiting: str
    approval_id: str


def record(project: Project) -> Recorded:
    """Make the record."""
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> Recorded:
        async with running(settings, drive=False) as charter:
            done, _ = await _run(charter, finish=True)
            await charter.checkpointer.checkpoint("default")
            waiting, approval_id = await _run(charter, finish=False)
            await charter.checkpointer.checkpoint("default")
        return Recorded(project, done, waiting, approval_id)

    return anyio.run(work)


async def _run(charter: Charter, *, finish: bool) -> tuple[str, str]:
    gate = charter.gate
    started = await gate.handle(IDE, cmd.StartWorkflow(template="governed-session", purpose="Plan"))
    ids: dict[str, Any] = {
        "workflow_id": started.workflow_id,
        "agent_invocation_id": started.invocations[0].agent_invocation_id,
    }
    for _ in range(3):
        await gate.handle(IDE, cmd.InvokeTool(**ids, tool="casebook__list_notes", arguments={}))
    asked = await gate.handle(IDE, cmd.InvokeTool(**ids, tool="casebook__write_note", arguments=WRITE, reason="Asked."))
    proposal_id = asked.proposal.proposal_id
    request = await gate.handle(IDE, cmd.RequestApproval(**ids, proposal_id=proposal_id))
    approval_id = str(request.approval_id)
    if finish:
        yes = cmd.DecideApproval(approval_id=approval_id, decision="approve", channel="cli")
        await gate.handle(CAROL, yes)
        ended = await gate.handle(IDE, cmd.InvokeTool(**ids, proposal_id=proposal_id))
        assert ended.status == "succeeded"
        await gate.handle(IDE, cmd.CompleteStep(**ids, output={"summary": "planned"}, summary="planned"))
    return started.workflow_id, approval_id
