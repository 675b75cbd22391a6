"""What happens between two commands of a page: agents at work, through the real gate, on the page's own folder.

``<!-- meanwhile: an agent asks to write a note -->`` above a block plays :func:`an_agent_asks_to_write_a_note`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio

from charter.errors import Refused
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.server.app import Charter, running
from charter.server.settings import load_settings
from tests.docs.running import Terminal

SCRIBE = Principal(id="scribe", kind="agent", roles=("agent",), acts_for="ann")
CAROL = Principal(id="carol", kind="human", roles=("approver",))
PLAN = {"name": "plan", "text": "Call them on Monday.\n"}
PAYMENT = {"to": "Ann", "cents": 1250}

Scene = Callable[[Charter, dict[str, str]], Awaitable[None]]


def play(name: str, terminal: Terminal) -> None:
    """Play a scene; the ids that come up are the newest that the page has seen."""
    by_name = {scene.__name__.replace("_", " "): scene for scene in SCENES}
    assert name in by_name or name in FILES, f"no such scene: {name}; there are: {', '.join([*by_name, *FILES])}"
    if name in FILES:
        (terminal.home / FILES[name]).touch()
        return
    environ = {"CHARTER_SERVER_PORT": str(terminal.port)}
    settings = load_settings(terminal.folder / "charter.toml", environ=environ)

    async def work() -> None:
        async with running(settings, drive=False) as charter:
            await by_name[name](charter, terminal.ids)

    anyio.run(work)


async def _start(charter: Charter, ids: dict[str, str], **more: Any) -> dict[str, Any]:
    command = cmd.StartWorkflow(template="governed-session", purpose="File a summary of case 12", **more)
    started = await charter.gate.handle(SCRIBE, command)
    ids["wf"], ids["inv"] = started.workflow_id, started.invocations[0].agent_invocation_id
    return {"workflow_id": ids["wf"], "agent_invocation_id": ids["inv"]}


async def _ask(
    charter: Charter, ids: dict[str, str], run: dict[str, Any], tool: str, arguments: dict[str, Any]
) -> None:
    call = cmd.InvokeTool(**run, tool=tool, arguments=arguments, reason="The case is closed; file the outcome.")
    asked = await charter.gate.handle(SCRIBE, call)
    ids["prop"] = asked.proposal.proposal_id
    request = await charter.gate.handle(SCRIBE, cmd.RequestApproval(**run, proposal_id=ids["prop"]))
    ids["appr"] = request.approval_id


async def an_agent_asks_to_write_a_note(charter: Charter, ids: dict[str, str]) -> None:
    """A run with a read, and a write that waits for people."""
    run = await _start(charter, ids)
    await charter.gate.handle(SCRIBE, cmd.InvokeTool(**run, tool="casebook__list_notes", arguments={}))
    await _ask(charter, ids, run, "casebook__write_note", PLAN)


async def the_agent_goes_on(charter: Charter, ids: dict[str, str]) -> None:
    """The approved call runs, and the step is completed."""
    run = {"workflow_id": ids["wf"], "agent_invocation_id": ids["inv"]}
    ended = await charter.gate.handle(SCRIBE, cmd.InvokeTool(**run, proposal_id=ids["prop"]))
    assert ended.status == "succeeded", ended
    done = cmd.CompleteStep(**run, output={"summary": "The plan is filed."}, summary="The plan is filed.")
    await charter.gate.handle(SCRIBE, done)


async def a_payment_is_cut_off(charter: Charter, ids: dict[str, str]) -> None:
    """A call that is not idempotent, whose upstream dies in the middle of it."""
    run = await _start(charter, ids)
    await _ask(charter, ids, run, "bank__pay", PAYMENT)
    await charter.gate.handle(CAROL, cmd.DecideApproval(approval_id=ids["appr"], decision="approve", channel="cli"))
    ended = await charter.gate.handle(SCRIBE, cmd.InvokeTool(**run, proposal_id=ids["prop"]))
    assert ended.status == "in_doubt", ended
    ids["eff"] = ended.effect_id


async def an_invoice_is_due(charter: Charter, ids: dict[str, str]) -> None:
    """A run that says something and ends."""
    started = cmd.StartWorkflow(template="invoice", purpose="Remind", input={"no": 7, "cents": 1250})
    await charter.gate.handle(SCRIBE, started)


async def an_agent_hands_in_a_report(charter: Charter, ids: dict[str, str]) -> None:
    """A phase: first too little is handed in, then enough; Charter gathers its evidence, and people are asked."""
    started = await charter.gate.handle(SCRIBE, cmd.StartWorkflow(template="report", purpose="Report on case 12"))
    ids["wf"], ids["inv"] = started.workflow_id, started.invocations[0].agent_invocation_id
    run = {"workflow_id": ids["wf"], "agent_invocation_id": ids["inv"]}
    with suppress(Refused):
        await charter.gate.handle(SCRIBE, cmd.CompleteStep(**run, output={"report": {"note": "welcome", "words": 3}}))
    await charter.gate.handle(SCRIBE, cmd.CompleteStep(**run, output={"report": {"note": "welcome", "words": 120}}))
    await charter.engine.settle()


SCENES: tuple[Scene, ...] = (
    an_invoice_is_due,
    an_agent_asks_to_write_a_note,
    the_agent_goes_on,
    a_payment_is_cut_off,
    an_agent_hands_in_a_report,
)
FILES = {"the bank changes a tool": "changed", "the bank will die in a payment": "dies"}
