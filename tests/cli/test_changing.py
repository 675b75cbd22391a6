"""What changes under a real server while calls are running: a definition, its pin, the policies.

No call runs under another definition or policy set than the one on record with it, and what is on record agrees with
what the upstream itself has counted.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client

from tests.cli.support import Project
from tests.cli.test_first_minutes import call
from tests.support import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TOOL = "every__echo"
EXTRA = '@id("nobody-else")\nforbid (principal, action, resource) when {{ principal == Charter::Agent::"{who}" }};\n'


@pytest.fixture
def state(project: Project, tmp_path: Path) -> Path:
    """An upstream whose definitions change when its tool ``change`` is called; Charter is told by ``list_changed``."""
    folder = tmp_path / "state"
    folder.mkdir()
    server = (sys.executable, "-m", "tests.tools.servers.everything", "--state", str(folder))
    project.ok("upstream", "add", "every", "--cwd", str(ROOT), "--as", "oscar", "--", *server)
    file = project.folder / "tools" / "every.tools.yaml"
    text = file.read_text().replace("\n    risk: high", "\n    risk: low")
    file.write_text(text.replace("\n    side_effects: irreversible", "\n    side_effects: none"))
    return folder


class Burst:
    """Agents that call one tool without a pause between their calls, until they are stopped."""

    def __init__(self, client: Client, ids: dict[str, str]) -> None:
        self._client, self._ids = client, ids
        self.ended: Counter[str] = Counter()
        self.done = False
        self._changed = anyio.Event()

    async def agent(self) -> None:
        while not self.done:
            outcome = await self.call(TOOL, value=1)
            self.ended[outcome.get("code") or outcome["status"]] += 1
            self._changed.set()
            self._changed = anyio.Event()
            if outcome.get("status") != "succeeded":
                await anyio.sleep(0.1)  # the next answer will be the same for a while

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return await call(self._client, "invoke_tool", **self._ids, tool=tool, arguments=arguments)

    async def more(self, what: str, number: int) -> None:
        """Until so many more calls have ended so."""
        wanted = self.ended[what] + number
        with anyio.fail_after(60):
            while self.ended[what] < wanted:
                await self._changed.wait()


@pytest.mark.guarantee("G3")
async def test_no_call_runs_under_another_definition_or_policy_set_than_the_one_on_record(
    project: Project, state: Path
) -> None:
    token = project.token("--agent", "ide", "--acts-for", "ann")
    with project.serving():
        async with project.client(token) as client:
            started = await call(client, "start_workflow", purpose="Burst")
            ids = {"workflow_id": started["workflow_id"], "agent_invocation_id": started["agent_invocation_id"]}
            burst = Burst(client, ids)
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(burst.agent)
                await burst.more("succeeded", 3)
                (project.folder / "policies" / "authorise-extra.cedar").write_text(EXTRA.format(who="somebody"))
                await burst.more("succeeded", 3)
                assert (await burst.call("every__change"))["status"] == "succeeded"
                await burst.more("tool_quarantined", 1)
                await anyio.to_thread.run_sync(pin, project)
                await burst.more("succeeded", 3)
                burst.done = True
    events = project.ok("audit", "log", "--json", "--limit", "10000", "--from", "1").json["items"]
    check_definitions(events)
    check_policies(events)
    check_counts(events, state)
    project.ok("audit", "verify")


def pin(project: Project) -> None:
    done = project.charter("tools", "pin", TOOL, "--yes", "--as", "oscar")
    assert done.code == 0, done.both


def of_type(events: list[dict[str, Any]], type_: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == type_]


def check_definitions(events: list[dict[str, Any]]) -> None:
    """The old definition before the quarantine, nothing within it, the new one from the pin on."""
    [pinned] = [e for e in of_type(events, "TOOL_PINNED") if e["data"]["tool"] == TOOL and e["data"].get("old_hash")]
    quarantined = next(e["seq"] for e in of_type(events, "POLICY_DECISION") if e["data"]["code"] == "tool_quarantined")
    runs = [e for e in of_type(events, "TOOL_INVOKE") if e["data"]["tool"] == TOOL]
    before = [e for e in runs if e["seq"] < quarantined]
    after = [e for e in runs if e["seq"] > pinned["seq"]]
    assert len(before) + len(after) == len(runs), "none while it was quarantined"
    assert {e["data"]["definition_hash"] for e in before} == {pinned["data"]["old_hash"]}
    assert {e["data"]["definition_hash"] for e in after} == {pinned["data"]["new_hash"]}


def check_policies(events: list[dict[str, Any]]) -> None:
    """Each call right after the decision that permits it, under one set after the other and never back."""
    hashes: list[str] = []
    permits: Counter[str] = Counter()
    for event in events:
        data = event["data"]
        if event["type"] == "POLICY_DECISION" and event["time"] >= of_type(events, "WORKFLOW_STARTED")[-1]["time"]:
            if data["policy_set_hash"] not in hashes[-1:]:
                hashes.append(data["policy_set_hash"])
            if data["verdict"] == "permit" and data.get("digest"):
                permits[data["digest"]] += 1
        elif event["type"] == "TOOL_INVOKE":
            permits[data["digest"]] -= 1
            assert permits[data["digest"]] == 0
    assert len(hashes) == len(set(hashes)) == 2, "the edited set, and the one before it"


def check_counts(events: list[dict[str, Any]], state: Path) -> None:
    """What the upstream saw is what is on record as having run, key for key."""
    ran = {e["data"]["effect_id"]: e["data"]["status"] for e in of_type(events, "TOOL_RESULT")}
    runs = [e["data"] for e in of_type(events, "TOOL_INVOKE") if e["data"]["tool"] == TOOL]
    recorded = Counter(data["idempotency_key"] for data in runs if ran[data["effect_id"]] == "succeeded")
    lines = [json.loads(line) for line in (state / "calls.jsonl").read_text().splitlines()]
    seen = Counter(line["meta"]["io.charter/idempotency-key"] for line in lines if line["tool"] == "echo")
    assert seen == recorded
    assert set(seen.values()) == {1}
