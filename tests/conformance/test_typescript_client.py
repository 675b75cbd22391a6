"""Clients of another SDK, with a real token: TypeScript v1 (handshake revisions) and v2 (2026-07-28)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conformance.node import Node
from tests.conformance.serving import Project, Served

pytestmark = [pytest.mark.node, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "typescript_client.mjs"
SDKS = {"v1": "2025-11-25", "v2": "2026-07-28"}
both_sdks = pytest.mark.parametrize("sdk", SDKS)


@pytest.fixture(scope="module")
def guarded(project: Project) -> Iterator[Served]:
    """``charter serve`` that wants a token."""
    with project.serving() as served:
        yield served


@pytest.fixture(scope="module")
def token(project: Project, guarded: Served) -> str:
    """An agent's, that acts for pat; for exactly this server."""
    url = guarded.url.replace("localhost", "127.0.0.1")
    options = ("--agent", "helper", "--acts-for", "pat", "--audience", url)
    return str(project.json("token", "issue", *options)["token"])


def play(npm: Node, sdk: str, served: Served, token: str, wish: str) -> dict[str, Any]:
    done = npm.run(SCRIPT, str(npm.modules), sdk, served.url.replace("localhost", "127.0.0.1"), token, wish)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = orjson.loads(done.stdout)
    return told


@both_sdks
def test_a_client_without_a_person_reads_and_is_told_that_its_write_waits(
    npm: Node, guarded: Served, token: str, sdk: str
) -> None:
    told = play(npm, sdk, guarded, token, "pending")
    assert told["protocol"] == SDKS[sdk]
    assert {"start_workflow", "invoke_tool", "casebook__read_note"} <= set(told["tools"])
    assert told["outside"]["structuredContent"]["code"] == "workflow_required"
    assert "This is a note of the casebook" in told["read"]["structuredContent"]["text"]
    assert told["write"]["isError"] is True
    assert told["write"]["structuredContent"]["code"] == "approval_required"
    assert told["requested"]["structuredContent"]["approval_status"] == "pending"
    waiting = orjson.loads(told["pending"]["contents"][0]["text"])["approvals"]
    assert told["ids"]["workflow_id"] in [item["workflow_id"] for item in waiting]
    assert "approve" in told["prompts"]
    assert "casebook__write_note" in told["prompt"]["messages"][0]["content"]["text"]
    own = [name for name in told["tools"] if not name.startswith(("every__", "old__"))]
    assert sorted(told["errors"]) == sorted(own)
    assert told["subscribed"] == (None if sdk == "v2" else [{}, {}])


@both_sdks
def test_a_client_with_a_person_asks_them_and_the_write_runs(
    npm: Node, guarded: Served, project: Project, token: str, sdk: str
) -> None:
    told = play(npm, sdk, guarded, token, "approve")
    assert len(told["asked"]) == 1
    assert "casebook__write_note" in told["asked"][0]
    assert told["requested"]["structuredContent"]["approval_status"] == "approved"
    assert not told["invoked"].get("isError")
    assert (project.folder / "casebook" / f"from-{sdk}-approve.md").read_text() == "Hello."


def test_without_a_token_nobody_gets_in(npm: Node, guarded: Served) -> None:
    done = npm.run(SCRIPT, str(npm.modules), "v2", guarded.url.replace("localhost", "127.0.0.1"), "none", "pending")
    assert done.returncode != 0
    assert "Unauthorized" in done.stderr
