"""The MCP Inspector's command line against ``charter serve``, over HTTP in both eras and over stdio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conformance.node import Node
from tests.conformance.serving import Project, Served

pytestmark = [pytest.mark.node, pytest.mark.slow]

INSPECTOR = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
PENDING = "charter://approvals/pending"


class Inspector:
    """Runs the Inspector once for each request, as a person at a terminal would."""

    def __init__(self, npm: Node, home: Path, options: tuple[str, ...], command: tuple[str, ...] = ()) -> None:
        self._npm, self._home, self._options, self._command = npm, home, options, command

    def __call__(self, method: str, *arguments: str) -> dict[str, Any]:
        start = ("--cli", *self._options, "--connect-timeout", "60000", "--format", "json", "-q")
        child = ("--", *self._command) if self._command else ()
        home = {"HOME": str(self._home), "USERPROFILE": str(self._home)}
        done = self._npm.run(INSPECTOR, *start, "--method", method, *arguments, *child, env=home)
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = orjson.loads(done.stdout)["result"]
        return found

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return self("tools/call", "--tool-name", tool, "--tool-args-json", orjson.dumps(arguments).decode())


@pytest.fixture(params=["http-legacy", "http-modern", "stdio"])
def inspector(request: pytest.FixtureRequest, npm: Node, project: Project, served: Served, tmp_path: Path) -> Inspector:
    transport, _, era = request.param.partition("-")
    if transport == "stdio":
        return Inspector(npm, tmp_path, ("--transport", "stdio"), tuple(project.command("serve", "--stdio")))
    return Inspector(npm, tmp_path, (served.url, "--transport", "http", "--protocol-era", era))


def test_a_person_with_the_inspector_sees_everything(inspector: Inspector) -> None:
    tools = {tool["name"]: tool for tool in inspector("tools/list")["tools"]}
    assert tools["start_workflow"]["outputSchema"]["type"] == "object"
    assert "workflow_id" in tools["casebook__read_note"]["inputSchema"]["required"]

    started = inspector.call("start_workflow", purpose="Look around")["structuredContent"]
    ids = {name: started[name] for name in ("workflow_id", "agent_invocation_id")}
    read = inspector.call("casebook__read_note", **ids, name="welcome")
    assert read["structuredContent"]["name"] == "welcome"
    assert not read.get("isError")

    prompt = inspector("prompts/get", "--prompt-name", "pending_approvals")
    assert prompt["messages"][0]["content"]["type"] == "text"
    resource = inspector("resources/read", "--uri", f"charter://workflows/{ids['workflow_id']}")
    assert orjson.loads(resource["contents"][0]["text"])["status"] == "running"
    pending = inspector("resources/read", "--uri", PENDING)
    assert "approvals" in orjson.loads(pending["contents"][0]["text"])


def test_no_listed_schema_is_in_error_by_the_inspectors_portability_check(
    npm: Node, served: Served, tmp_path: Path
) -> None:
    options = (served.url, "--transport", "http", "--protocol-era", "modern")
    tools = Inspector(npm, tmp_path, options)("tools/list", "--strict")["tools"]
    assert len(tools) > 8
