"""A newcomer's first ten minutes, and an approver's: init, serve, token, a real client, approve elsewhere, verify."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp import Client

from tests.cli.support import Project, charter

pytestmark = pytest.mark.anyio

WRITE = {"name": "case-1/plan", "text": "Call them on Monday.\n"}


async def call(client: Client, tool: str, /, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


async def test_from_nothing_to_a_governed_call(project: Project) -> None:
    """The whole road, each command in a process of its own beside the running server."""
    token = project.token("--agent", "ide", "--acts-for", "ann")
    with project.serving():
        async with project.client(token) as client:
            started = await call(client, "start_workflow", purpose="Plan case 1")
            ids = {"workflow_id": started["workflow_id"], "agent_invocation_id": started["agent_invocation_id"]}
            write = {"tool": "casebook__write_note", "arguments": WRITE}
            asked = await call(client, "invoke_tool", **ids, **write, reason="The plan was asked for.")
            assert asked["status"] == "pending_approval"
            requested = await call(client, "request_approval", **ids, proposal_id=asked["proposal"]["proposal_id"])
            approval_id = requested["approval_id"]

            await anyio.to_thread.run_sync(approve, project, approval_id, token)

            done = await call(client, "invoke_tool", **ids, proposal_id=asked["proposal"]["proposal_id"])
            assert done["status"] == "succeeded"
            assert (project.folder / "casebook" / "case-1" / "plan.md").read_text() == WRITE["text"]

            again = project.charter("approvals", "approve", approval_id, "--yes", "--as", "carol")
            assert again.code == 1
            assert "Next:" in again.err
            await anyio.to_thread.run_sync(look, project, started["workflow_id"])


def approve(project: Project, approval_id: str, agents_token: str) -> None:
    """Another process: who may not, may not; who may, sees the exact call first."""
    listed = project.ok("approvals", "list", "--json").json
    assert [item["approval_id"] for item in listed["items"]] == [approval_id]
    assert approval_id in project.ok("approvals", "list").out

    agent = project.charter("approvals", "approve", approval_id, "--yes", env={"CHARTER_TOKEN": agents_token})
    assert agent.code == 1
    assert "cannot answer for a person" in agent.err

    unasked = project.charter("approvals", "approve", approval_id, "--as", "carol", stdin="n\n")
    assert unasked.code == 0
    assert "Left as it is." in unasked.out

    stale = project.charter("approvals", "approve", approval_id, "--yes", "--digest", "sha256:" + "0" * 64)
    assert stale.code == 1

    done = project.ok("approvals", "approve", approval_id, "--yes", "--as", "carol", "-m", "fine")
    assert "Call them on Monday." in done.out  # the exact call
    assert "agent's reason: " in done.out
    assert "carol" in done.out
    assert project.ok("approvals", "list").err.startswith("Nothing waits")


def look(project: Project, workflow_id: str) -> None:
    """The record, while the server runs."""
    shown = project.ok("workflows", "show", workflow_id)
    assert "Plan case 1" in shown.out
    assert [item["workflow_id"] for item in project.ok("workflows", "list", "--json").json["items"]] == [workflow_id]

    tree = project.ok("audit", "trace", workflow_id)
    for word in ("WORKFLOW_STARTED", "approve by carol (cli)", "TOOL_INVOKE", "no findings"):
        assert word in tree.out
    verified = project.ok("audit", "verify", "--json").json
    assert verified["ok"]
    assert verified["findings"] == []
    decisions = project.ok("audit", "log", "--type", "APPROVAL_DECISION", "--json").json["items"]
    assert [(item["data"]["decided_by"], item["data"]["channel"]) for item in decisions] == [("carol", "cli")]
    assert "key-folder" in decisions[0]["data"]["roles"]  # the record shows that no personal token was used
    event = project.ok("audit", "show", decisions[0]["id"], "--json").json
    assert event["seq"] == decisions[0]["seq"]


async def test_serve_over_standard_input_and_output(project: Project) -> None:
    """What an IDE starts from the entry that mcp-config prints: the caller is [stdio]'s."""
    from mcp import StdioServerParameters
    from mcp.client.stdio import stdio_client

    entry = project.ok("mcp-config", "--client", "claude", "--json").json
    server = json.loads(entry["body"])["mcpServers"]["charter"]
    parameters = StdioServerParameters(command=server["command"], args=server["args"])
    with open("/dev/null", "w") as nowhere:  # noqa: ASYNC230 - a device does not wait
        async with Client(stdio_client(parameters, errlog=nowhere)) as client:
            started = await call(client, "start_workflow", purpose="Read")
            ids = {"workflow_id": started["workflow_id"], "agent_invocation_id": started["agent_invocation_id"]}
            notes = await client.call_tool("casebook__list_notes", ids)
            assert notes.structured_content == {"notes": ["welcome"]}
    [run] = project.ok("workflows", "list", "--json").json["items"]
    assert run["owner"] == "ann"


def test_init_writes_what_is_missing_and_keeps_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first = charter("init", str(folder), "--person", "ann", cwd=tmp_path)
    assert first.code == 0
    assert "Next:" in first.out
    keys = folder / ".charter" / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in keys.iterdir()} == {0o600}
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    (folder / "policies" / "authorise.cedar").write_text("// mine\n")
    second = charter("init", str(folder), "--json", cwd=tmp_path)
    assert second.code == 0
    assert {item["action"] for item in second.json["files"]} == {"kept"}
    before[folder / "policies" / "authorise.cedar"] = b"// mine\n"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


async def test_the_casebooks_manifests_are_what_the_real_server_offers(project: Project) -> None:
    """Nothing is quarantined after init, and a person has corrected the risks."""
    assert project.ok("tools", "diff").err == "Every tool is as it was pinned.\n"
    tools = {item["upstream_name"]: item for item in project.ok("tools", "list", "--json").json["items"]}
    assert {name: tool["risk"] for name, tool in tools.items() if tool["risk"] != "low"} == {
        "write_note": "medium",
        "append_note": "medium",
        "delete_note": "high",
        "send_notice": "high",
    }
    assert tools["write_note"]["dry_run"]["tool"] == "preview_write_note"
    assert project.ok("upstream", "check", "--json").json["quarantined"] == []


def test_a_command_without_a_charter_says_what_to_do(tmp_path: Path) -> None:
    for command in (["approvals", "list"], ["serve"], ["token", "issue", "--agent", "x"], ["audit", "verify"]):
        done = charter(*command, cwd=tmp_path)
        assert done.code == 2, command
        assert "Next: Run `charter init`" in done.err
        assert len(done.err.strip().splitlines()) == 2


def test_usage_errors_are_two_lines_and_code_two(tmp_path: Path) -> None:
    for command in (["approvals", "approv"], ["token", "issue"], ["--nonsense"], ["serve", "--port", "many"]):
        done = charter(*command, cwd=tmp_path)
        assert done.code == 2, command
        assert done.out == ""
        assert len(done.err.strip().splitlines()) == 2
        assert "--help" in done.err
