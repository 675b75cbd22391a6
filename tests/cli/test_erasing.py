"""``charter audit erase``: what is sealed beside the log goes for good, and the record stays whole."""

from __future__ import annotations

import anyio

from charter.model import commands as cmd
from charter.server.app import running
from charter.server.settings import load_settings
from tests.cli.recorded import IDE, WRITE
from tests.cli.support import Project

SECRET = WRITE["text"].strip()


def test_what_is_sealed_is_erased_by_an_administrator_with_a_reason(project: Project) -> None:
    run = propose_with_a_sensitive_text(project)
    log = project.ok("audit", "log", "--workflow", run, "--json")
    assert SECRET not in log.out
    [ref] = {event["data"]["sealed_ref"] for event in log.json["items"] if "sealed_ref" in event["data"]}
    erase = ["audit", "erase", ref]
    assert project.here(*erase, "--role", "admin").code == 2, "a reason must be given"
    assert project.here(*erase, "--reason", "Ann asked.").code == 1, "operators may not"
    assert "on record" in project.ok(*erase, "--reason", "Ann asked.", "--as", "ada", "--role", "admin").out
    [event] = project.ok("audit", "log", "--type", "SEALED_ERASED", "--json").json["items"]
    assert event["data"] == {"ref": ref, "erased_by": "ada", "reason": "Ann asked."}
    assert f"{ref} by ada: Ann asked." in project.ok("audit", "show", str(event["seq"])).out
    again = project.here(*erase, "--reason", "Ann asked.", "--role", "admin")
    assert (again.code, "erased already" in again.err) == (1, True), again.both
    assert "Everything verifies" in project.ok("audit", "verify").out


def propose_with_a_sensitive_text(project: Project) -> str:
    tools = project.folder / "tools" / "casebook.tools.yaml"
    mark = "  - tool: write_note\n"
    text = tools.read_text("utf-8")
    assert mark in text
    if f"{mark}    sensitive" not in text:
        tools.write_text(text.replace(mark, f"{mark}    sensitive_arguments: [/text]\n"), "utf-8")
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def propose() -> str:
        async with running(settings, drive=False) as charter:
            started = await charter.gate.handle(IDE, cmd.StartWorkflow(template="governed-session", purpose="Plan"))
            command = cmd.ProposeAction(
                workflow_id=started.workflow_id,
                agent_invocation_id=started.invocations[0].agent_invocation_id,
                tool="casebook__write_note",
                arguments=dict(WRITE),
            )
            await charter.gate.handle(IDE, command)
            return str(started.workflow_id)

    return anyio.run(propose)
