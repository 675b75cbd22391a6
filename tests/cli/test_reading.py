"""What commands read: the record page by page, templates, schemas; and effects in doubt, which a person settles."""

from __future__ import annotations

from pathlib import Path

import anyio
import jsonschema
import pytest

from charter.model import commands as cmd
from charter.server.app import running
from charter.server.settings import load_settings
from tests import forked
from tests.cli.recorded import CAROL, IDE, Recorded
from tests.cli.support import Project


def test_the_log_is_read_forwards_backwards_and_by_filters(recorded: Recorded) -> None:
    project = recorded.project
    everything = project.ok("audit", "log", "--from", "0", "--limit", "1000", "--json").json["items"]
    assert [event["seq"] for event in everything] == list(range(len(everything)))
    newest = project.ok("audit", "log", "--limit", "5", "--json").json["items"]
    assert newest == everything[-5:]
    first = project.ok("audit", "log", "--from", "0", "--limit", "7", "--json").json
    assert first["items"] == everything[:7]
    second = project.ok("audit", "log", "--from", first["next"], "--limit", "7", "--json").json
    assert second["items"] == everything[7:14]
    types = {"TOOL_INVOKE", "TOOL_RESULT"}
    wanted = [event for event in everything if event["type"] in types]
    assert project.ok("audit", "log", "--type", ",".join(types), "--json").json["items"] == wanted
    assert (
        project.ok("audit", "log", "--type", "tool_invoke", "--limit", "2", "--json").json["items"]
        == [event for event in everything if event["type"] == "TOOL_INVOKE"][-2:]
    )
    mine = [event for event in everything if event["stream"] == recorded.done]
    assert project.ok("audit", "log", "--workflow", recorded.done, "--json").json["items"] == mine
    for event in everything[:: len(everything) // 6]:
        assert project.ok("audit", "show", event["id"], "--json").json["seq"] == event["seq"]
    assert project.here("audit", "show", "evt_nothing").code == 1
    assert project.here("audit", "show", "100000").code == 1


def test_an_owner_reads_the_record_of_their_run_and_a_stranger_does_not(recorded: Recorded) -> None:
    owner = ["--as", "ann", "--role", "nobody"]
    assert "WORKFLOW_COMPLETED" in recorded.project.ok("audit", "trace", recorded.done, *owner).out
    assert recorded.project.here("audit", "trace", recorded.done, "--as", "eve", "--role", "nobody").code == 1


def test_lists_go_on_where_they_ended(recorded: Recorded) -> None:
    project = recorded.project
    page = project.ok("workflows", "list", "--limit", "1", "--json").json
    rest = project.ok("workflows", "list", "--limit", "1", "--after", page["next"], "--json").json
    assert [item["workflow_id"] for item in (*page["items"], *rest["items"])] == [recorded.waiting, recorded.done]
    assert rest["next"] is None
    assert project.ok("workflows", "list", "--status", "completed", "--json").json["items"][0]["status"] == "completed"
    assert project.here("workflows", "list", "--after", "nonsense").code == 2
    assert project.here("workflows", "show", "wf_nothing").code == 1


def test_templates_are_listed_shown_and_validated(project: Project, tmp_path: Path) -> None:
    names = [item["name"] for item in project.ok("template", "list", "--json").json["items"]]
    assert {"governed-session", "safe-ai-assisted"} <= set(names)
    assert "work (agent)" in project.ok("template", "show", "governed-session").out
    assert project.here("template", "show", "nothing").code == 1
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(
        "name: look\nversion: '1'\nsteps:\n  - {id: work, type: agent, allowed_tools: [casebook__read_note]}\n"
    )
    bad.write_text("name: look\nversion: '1'\nsteps:\n  - {id: work, type: agnet}\n")
    assert "look@1" in project.ok("template", "validate", str(good)).out
    assert project.ok("template", "graph", str(good)).out.split()[:2] == ["work", "agent"]
    assert project.ok("template", "graph", "governed-session", "--format", "mermaid").out.startswith("flowchart TD")
    assert project.ok("template", "diff", str(good), str(good), "--json").json["items"] == []
    differing = project.here("template", "diff", str(good), "governed-session", "--json")
    assert (differing.code, differing.json["items"][0]["where"]) == (1, "name")
    done = project.here("template", "validate", str(good), str(bad))
    assert done.code == 2
    assert "bad.yaml:4" in done.err
    good.write_text(good.read_text().replace("casebook__read_note", "nowhere__fly"))
    assert project.here("template", "validate", str(good)).code == 0
    assert project.here("template", "validate", "--strict", str(good)).code == 2


def test_published_schemas_are_schemas_and_fit_what_commands_print(recorded: Recorded) -> None:
    project = recorded.project
    names = project.ok("schema", "--json").json["items"]
    assert {"workflow-context", "approval-request", "template", "cedar"} <= set(names)
    for name in ("workflow-context", "approval-request", "event-tool-invoke"):
        jsonschema.Draft202012Validator.check_schema(project.ok("schema", name).json)
    context = project.ok("workflows", "show", recorded.waiting, "--json").json
    jsonschema.validate(context, project.ok("schema", "workflow-context").json)
    assert project.here("schema", "nothing").code == 1


@pytest.fixture
def in_doubt(project: Project, tmp_path: Path) -> tuple[Project, str]:
    """A call whose caller went away while it ran: nobody knows whether it did. The project and the effect."""
    server = forked.command("tests.cli.holding_server", str(tmp_path))
    project.ok("upstream", "add", "holding", "--", *server)
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> None:
        async with running(settings, drive=False) as charter:
            gate = charter.gate
            started = await gate.handle(IDE, cmd.StartWorkflow(template="governed-session", purpose="Crawl"))
            ids = {
                "workflow_id": started.workflow_id,
                "agent_invocation_id": started.invocations[0].agent_invocation_id,
            }
            hold = cmd.ProposeAction(**ids, tool="holding__hold", arguments={"name": "call"})
            proposed = await gate.handle(IDE, hold)
            asked = await gate.handle(IDE, cmd.RequestApproval(**ids, proposal_id=proposed.proposal_id))
            yes = cmd.DecideApproval(approval_id=asked.approval_id, decision="approve", channel="cli")
            await gate.handle(CAROL, yes)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(gate.handle, IDE, cmd.InvokeTool(**ids, proposal_id=proposed.proposal_id))
                while not (tmp_path / "call.begun").exists():  # noqa: ASYNC110 - it waits for another process
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
        (tmp_path / "call.go").touch()  # from now on it answers at once

    anyio.run(work)
    [effect] = project.ok("effects", "list", "--json").json["items"]
    assert effect["tool"] == "holding__hold"
    return project, effect["effect_id"]


def test_a_person_says_what_became_of_an_effect_in_doubt(in_doubt: tuple[Project, str]) -> None:
    project, effect_id = in_doubt
    assert effect_id in project.ok("effects", "list").out
    visitor = project.here("effects", "resolve", effect_id, "ran", "--as", "eve", "--role", "auditor")
    assert visitor.code == 1
    done = project.ok("effects", "resolve", effect_id, "ran", "-m", "I saw it there.", "--as", "oscar")
    assert "is on record" in done.out
    assert project.ok("effects", "list", "--json").json["items"] == []
    assert project.here("effects", "resolve", effect_id, "ran", "--as", "oscar").code == 1
    [event] = project.ok("audit", "log", "--type", "EFFECT_RESOLVED", "--json").json["items"]
    assert (event["data"]["resolution"], event["data"]["resolved_by"]) == ("ran", "oscar")
    assert project.ok("audit", "verify", "--json").json["ok"]


def test_an_effect_in_doubt_is_run_again_from_the_command_line(in_doubt: tuple[Project, str]) -> None:
    project, effect_id = in_doubt
    done = project.charter("effects", "resolve", effect_id, "retry", "--as", "oscar", "--json")
    assert done.code == 0, done.both
    assert done.json["outcome"]["status"] == "succeeded"
    results = project.ok("audit", "log", "--type", "TOOL_INVOKE,TOOL_RESULT", "--json").json["items"]
    assert [event["data"].get("attempt") for event in results[-2:]] == [2, 2]
    assert project.ok("audit", "verify", "--json").json["ok"]


HOSTILE = "wf_\x1b[2J" + "x" * 100_000


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    "command",
    [
        ("workflows", "show", HOSTILE),
        ("workflows", "cancel", HOSTILE),
        ("approvals", "show", HOSTILE),
        ("approvals", "approve", HOSTILE, "--yes"),
        ("effects", "resolve", HOSTILE, "ran", "-m", "x"),
        ("audit", "trace", HOSTILE),
        ("audit", "show", HOSTILE),
        ("audit", "erase", HOSTILE, "-m", "x", "--role", "admin"),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_an_id_that_is_none_is_refused_and_not_sent_back(recorded: Recorded, command: tuple[str, ...]) -> None:
    done = recorded.project.here(*command)
    assert done.code in (1, 2), done.both[:500]
    assert len(done.both) < 600
    assert done.err.replace("\n", "").isprintable()
