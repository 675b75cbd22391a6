"""What operators do with runs from the command line: find them, hold them, have them go on, end them."""

from __future__ import annotations

import anyio

from charter.model import commands as cmd
from charter.server.app import running
from charter.server.settings import load_settings
from tests.cli.recorded import IDE, Recorded
from tests.cli.support import Project

READ = """
name: read
version: "1"
steps:
  - {id: look, type: action, tool: casebook__read_note, arguments: {name: "{{ trigger.note }}"}, on_failure: %s}
"""


def runs(project: Project, on_failure: str, *, driven: int = 1) -> str:
    """A run of a template that reads a note which is not there, as a server would have driven it."""
    (project.folder / "templates").mkdir(exist_ok=True)
    (project.folder / "templates" / "read.yaml").write_text(READ % on_failure)
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> str:
        async with running(settings, drive=False) as charter:
            start = cmd.StartWorkflow(template="read", input={"note": "late"}, purpose="Read it")
            started = await charter.gate.handle(IDE, start)
            for _ in range(driven):
                await charter.engine.settle()
            return str(started.workflow_id)

    return anyio.run(work)


def driven(project: Project) -> None:
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> None:
        async with running(settings, drive=False) as charter:
            await charter.engine.settle()

    anyio.run(work)


def ids(project: Project, *options: str) -> list[str]:
    return [row["workflow_id"] for row in project.ok("workflows", "list", *options, "--json").json["items"]]


def test_runs_are_found_by_template_state_blocker_and_age(recorded: Recorded) -> None:
    project = recorded.project
    both = [recorded.waiting, recorded.done]
    assert ids(project) == both, "newest first"
    assert ids(project, "--template", "governed-session") == both
    assert ids(project, "--template", "governed-session@1") == both
    assert ids(project, "--template", "governed") == []
    assert ids(project, "--status", "completed") == [recorded.done]
    assert ids(project, "--blocked-on", "approval") == [recorded.waiting]
    assert ids(project, "--blocked-on", "agent:nobody") == []
    assert ids(project, "--older-than", "1d") == []
    assert ids(project, "--newer-than", "1d", "--owner", "ann") == both
    page = project.ok("workflows", "list", "--limit", "1", "--json").json
    assert [row["workflow_id"] for row in page["items"]] == [recorded.waiting]
    assert ids(project, "--after", page["next"]) == [recorded.done]
    for wrong in ("7", "d", "-1d", "1y", "１d"):
        assert project.here("workflows", "list", "--older-than", wrong).code == 2, wrong


def test_a_run_is_held_and_goes_on(recorded: Recorded) -> None:
    project, run = recorded.project, recorded.waiting
    assert project.here("workflows", "pause", run, "--as", "dora", "--role", "approver").code == 1
    told = project.ok("workflows", "pause", run, "-m", "holiday", "--role", "operator").out
    assert "is paused" in told
    shown = project.ok("workflows", "show", run, "--role", "operator").out
    assert "an operator resumes it" in shown
    assert project.here("workflows", "pause", run, "--role", "operator").code != 0, "it is paused already"
    assert "is running" in project.ok("workflows", "resume", run, "--role", "operator").out
    assert "is cancelled" in project.ok("workflows", "cancel", run, "--role", "operator").out
    assert project.here("workflows", "resume", run, "--role", "operator").code != 0
    paused = project.ok("audit", "log", "--type", "WORKFLOW_PAUSED", "--json").json["items"][-1]["data"]
    assert paused["reason"] == "holiday"


def test_a_failed_run_goes_on_when_an_operator_says_so(project: Project) -> None:
    run = runs(project, "fail_workflow")
    assert project.ok("workflows", "show", run, "--json").json["status"] == "failed"
    assert project.here("workflows", "retry", run, "--as", "dora", "--role", "approver").code == 1
    (project.folder / "casebook" / "late.md").write_text("Here it is.\n")
    assert "is running" in project.ok("workflows", "retry", run, "-m", "the note is there", "--role", "operator").out
    driven(project)
    assert project.ok("workflows", "show", run, "--json").json["status"] == "completed"
    assert project.here("workflows", "retry", run, "--role", "operator").code != 0
    retried = project.ok("audit", "log", "--type", "WORKFLOW_RETRIED", "--json").json["items"][-1]["data"]
    assert (retried["steps"], retried["reason"]) == (["look"], "the note is there")
    assert project.ok("audit", "verify").code == 0


def test_a_step_in_review_goes_on_as_an_operator_says(project: Project) -> None:
    run = runs(project, "human_review")
    mine = ("--role", "operator")
    assert ids(project, "--blocked-on", "review") == [run]
    assert project.here("workflows", "review", run, "look", "perhaps", *mine).code == 2
    assert project.here("workflows", "review", run, "look", "supply", "--output", "{", *mine).code == 2
    assert project.here("workflows", "review", run, "nowhere", "skip", *mine).code != 0
    done = project.ok("workflows", "review", run, "look", "supply", "--output", '{"text": "by hand"}', *mine)
    assert "look is completed" in done.out
    assert project.ok("workflows", "show", run, "--json").json["status"] == "completed"


def test_removing_a_template_keeps_every_record_of_its_runs(recorded: Recorded) -> None:
    project = recorded.project
    run = runs(project, "skip")
    shown = (("workflows", "show", run), ("audit", "trace", run), ("audit", "log", "--workflow", run))
    before = [project.ok(*line, "--json").out for line in shown]
    (project.folder / "templates" / "read.yaml").unlink()
    assert [project.ok(*line, "--json").out for line in shown] == before
    assert ids(project, "--template", "read@1") == [run]
    assert "read" not in [row["name"] for row in project.ok("template", "list", "--json").json["items"]]
    project.ok("audit", "verify")


def test_a_run_goes_on_if_it_can_and_says_what_is_missing(recorded: Recorded) -> None:
    project, mine = recorded.project, ("--role", "operator")
    before = project.ok("audit", "log", "--workflow", recorded.waiting, "--json").out
    told = project.ok("workflows", "advance", recorded.waiting, *mine).out
    assert "nothing was due" in told
    assert "Approval of casebook__" in told
    assert project.ok("audit", "log", "--workflow", recorded.waiting, "--json").out == before
    assert project.here("workflows", "advance", recorded.waiting, "--as", "dora", "--role", "approver").code == 1
    run = runs(project, "fail_workflow", driven=0)
    found = project.ok("workflows", "advance", run, *mine, "--json").json
    assert (found["ready"], found["moved"]) == (["look"], [])
    assert "look (by the server: charter serve)" in project.ok("workflows", "advance", run, *mine).out
    driven(project)
    ended = project.ok("workflows", "advance", run, *mine, "--json").json
    assert (ended["status"], ended["missing"]) == ("failed", [])


def test_an_operator_sees_what_the_agent_may_do_and_why_not_the_rest(recorded: Recorded) -> None:
    project, mine = recorded.project, ("--role", "operator")
    told = project.ok("workflows", "actions", recorded.waiting, *mine).out
    assert f"{IDE.id} in {recorded.waiting}" in told
    found = project.ok("workflows", "actions", recorded.waiting, *mine, "--json").json
    [grant] = found["invocations"]
    tools = {item["name"]: item["may"] for item in grant["tools"]}
    assert (tools["casebook__list_notes"], tools["casebook__delete_note"]) == ("yes", "needs_approval")
    assert [item["waits_for"] for item in grant["proposals"]] == ["1 person"]
    project.ok("workflows", "pause", recorded.waiting, *mine)
    paused = project.ok("workflows", "actions", recorded.waiting, *mine, "--agent-role", "agent", "--json").json
    assert {item["code"] for item in paused["invocations"][0]["tools"]} == {"workflow_paused"}
    assert project.here("workflows", "actions", recorded.waiting, "--as", "dora", "--role", "approver").code == 1
    assert project.here("workflows", "actions", recorded.waiting, "--invocation", "inv_nothing", *mine).code == 1
