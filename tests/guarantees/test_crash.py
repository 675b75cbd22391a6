"""kill -9 on the real server, at random instants under load and at every commit of a scenario.

Afterwards: everything acknowledged is on record, no tool that is not idempotent ran twice (the upstream counted), what
nobody knows is reported as in doubt, waits have gone on, and the ledger verifies with the public key alone.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

from charter.audit.checkpoint import VerifierKey
from charter.audit.envelope import Envelope
from charter.audit.trace import validate_trace
from charter.audit.verify import SizedNote, verify_log
from charter.manifests.tool_files import UpstreamManifest
from charter.store.sqlite import SqliteStore
from tests.guarantees.serving import Served, install
from tests.guarantees.upstream import Counting
from tests.guarantees.world import by_stream

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.guarantee("G5"),
    pytest.mark.guarantee("G6"),
    pytest.mark.guarantee("G7"),
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal"),
]

ENDED = ("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_REJECTED", "WORKFLOW_CANCELLED")


@pytest.fixture
async def served(tmp_path: Path, manifest: UpstreamManifest, upstream: Counting) -> AsyncIterator[Served]:
    upstream.forget()
    served = install(tmp_path, manifest)
    yield served
    if served.process is not None and served.process.poll() is None:
        served.kill()


@dataclass
class Told:
    """What clients were told, and by nothing else than an answer that arrived."""

    started: dict[str, str] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    wrong: list[Any] = field(default_factory=list)


_numbers = itertools.count(1)


class Agent:
    """A client that works until its server goes away."""

    def __init__(self, served: Served, told: Told) -> None:
        self.served, self.told = served, told

    async def work(self) -> None:
        """Until the connection breaks; whatever breaks it, nothing more was acknowledged."""
        with suppress(Exception):
            async with self.served.client() as self.client:
                while True:
                    await self.scenario(f"key-{next(_numbers)}")

    async def scenario(self, key: str) -> None:
        """Every kind of acknowledgement once; under the same key it may be played again from where it broke off."""
        for template in ("flow", "wait"):
            waiting = await self.call(
                "start_workflow", template=template, purpose="load", idempotency_key=key + template
            )
            self.told.started[key + template] = waiting["workflow_id"]
        run = await self.call("start_workflow", template="governed-session", purpose="load", idempotency_key=key)
        self.told.started[key] = run["workflow_id"]
        if run["status"] == "completed":
            self.told.completed.add(run["workflow_id"])
            return
        ids = {name: run["invocations"][0][name] for name in ("agent_invocation_id",)} | {
            "workflow_id": run["workflow_id"]
        }
        charge, write = {"account": key, "cents": 1}, {"what": key, "value": "1"}
        done = await self.call("invoke_tool", **ids, tool="counter__charge", arguments=charge)
        self.told.ended[done["effect_id"]] = done["status"]
        batch = [
            await self.call("propose_action", **ids, tool=f"counter__{tool}", arguments=arguments, reason="load")
            for tool, arguments in (("charge", {**charge, "cents": 2}), ("write_idempotent", write))
        ]
        done = await self.call("invoke_tool", **ids, proposal_ids=[item["proposal_id"] for item in batch])
        for member in done["results"]:
            self.told.ended[member["effect_id"]] = member["status"]
        slow = {"tool": "counter__slow", "arguments": {"seconds": 0}, "reason": "load"}
        proposal = await self.call("propose_action", **ids, **slow)
        asked = await self.call("request_approval", **ids, proposal_id=proposal["proposal_id"])
        self.told.asked[asked["approval_id"]] = run["workflow_id"]
        await self.call("complete_step", **ids, output={"summary": key})
        self.told.completed.add(run["workflow_id"])

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        with anyio.fail_after(30):
            result = await self.client.call_tool(tool, arguments)
        if result.is_error:
            self.told.wrong.append(result)
            raise RuntimeError("the scenario cannot go on")
        return dict(result.structured_content or {})


async def record_of(served: Served) -> dict[str, list[Envelope]]:
    """Every run's events, from a ledger that verifies with the public key."""
    return {stream: events for stream, events in (await streams_of(served)).items() if stream.startswith("wf_")}


async def streams_of(served: Served) -> dict[str, list[Envelope]]:
    """All of them, those beside the runs included."""
    store = SqliteStore(served.database)
    await store.open()
    rows = await store.log("default", 0, 1_000_000)
    head, notes = await store.head("default"), await store.checkpoints("default")
    key = VerifierKey.parse((served.settings.keys_folder / "checkpoint.vkey").read_text())
    report = verify_log(
        rows, "default", (key,), notes=[SizedNote(note, size) for size, note in notes], head=(head.size, head.root)
    )
    assert report.ok, report.findings
    assert report.covered == len(rows), "the server signed the head on its way out"
    streams = by_stream(rows)
    assert all(validate_trace(events) == () for stream, events in streams.items() if stream.startswith("wf_"))
    await store.close()
    return streams


async def settled(served: Served) -> None:
    """Wait until nothing is left to do: no call runs, each flow and each wait has ended."""
    store = SqliteStore(served.database)
    await store.open()
    with anyio.fail_after(60):
        while True:
            rows = await store.log("default", 0, 1_000_000)
            runs = {stream: events for stream, events in by_stream(rows).items() if stream.startswith("wf_")}
            if all(_at_rest(events) for events in runs.values()):
                break
            await anyio.sleep(0.3)
    await store.close()


def _at_rest(events: list[Envelope]) -> bool:
    template = events[0].data["template"]
    doubt = any(end == "in_doubt" for end in effects_of(events).values())
    running = any(end == "running" for end in effects_of(events).values())
    return not running and (events[-1].type in ENDED or doubt or template.startswith("governed"))


def effects_of(events: list[Envelope]) -> dict[str, str]:
    """Each effect and how it ended."""
    ended: dict[str, str] = {}
    for event in events:
        if event.type == "TOOL_INVOKE":
            ended[event.data["effect_id"]] = "running"
        elif event.type == "TOOL_RESULT":
            ended[event.data["effect_id"]] = event.data["status"]
        elif event.type == "EFFECT_IN_DOUBT":
            ended[event.data["effect_id"]] = "in_doubt"
    return ended


async def check(served: Served, upstream: Counting, told: Told) -> None:
    """See the module's text."""
    assert told.wrong == []
    doubts_listed = served.command("effects", "list", "--json")
    served.stop()
    runs = await record_of(served)
    effects: dict[str, str] = {}
    for events in runs.values():
        effects |= effects_of(events)
    check_told(runs, effects, told)
    charges = upstream.counts("charge")
    assert all(count == 1 for count in charges.values()), "a charge ran twice"
    assert charges.keys() | upstream.counts("write_idempotent").keys() <= effects.keys(), (
        "it ran before it was on record"
    )
    for key, end in effects.items():
        assert end in ("succeeded", "in_doubt", "failed")
        assert end == "in_doubt" or charges[key] + upstream.counts("write_idempotent")[key] >= (end == "succeeded")
    doubts = {key for key, end in effects.items() if end == "in_doubt"}
    assert doubts == {line["effect_id"] for line in doubts_listed["items"]}
    assert {_tool_of(runs, key) for key in doubts} <= {"counter__charge"}, "an idempotent call is never in doubt"
    for events in runs.values():
        if events[0].data["template"].startswith("wait"):
            assert events[-1].type == "WORKFLOW_REJECTED", "the timer went on"


def check_told(runs: dict[str, list[Envelope]], effects: dict[str, str], told: Told) -> None:
    for key, workflow_id in told.started.items():
        assert workflow_id in runs, key
    assert len(set(told.started.values())) == len(told.started)
    for effect_id, status in told.ended.items():
        assert effects[effect_id] == status
    requests = {
        event.data["request"]["approval_id"]: stream
        for stream, events in runs.items()
        for event in events
        if event.type == "APPROVAL_REQUESTED"
    }
    assert told.asked.items() <= requests.items()
    for workflow_id in told.completed:
        assert runs[workflow_id][-1].type == "WORKFLOW_COMPLETED"


def _tool_of(runs: dict[str, list[Envelope]], effect_id: str) -> str:
    invokes = (e.data for events in runs.values() for e in events if e.type == "TOOL_INVOKE")
    return str(next(data["tool"] for data in invokes if data["effect_id"] == effect_id))


async def killed_under_load(served: Served, told: Told, kills: int, agents: int = 4) -> None:
    """So many lives of the server, each ended at a random instant under load."""
    chance = random.Random(orjson.dumps([kills, agents]))
    for _ in range(kills):
        served.start()
        before = len(told.started)
        async with anyio.create_task_group() as tasks:
            for _ in range(agents):
                tasks.start_soon(Agent(served, told).work)
            with anyio.move_on_after(30):
                while len(told.started) < before + agents:  # noqa: ASYNC110 - it waits for another process
                    await anyio.sleep(0.01)
            await anyio.sleep(chance.uniform(0, 1.0))
            served.kill()
            tasks.cancel_scope.deadline = anyio.current_time() + 2  # answers on their way arrive


async def test_the_server_is_killed_a_few_times_under_load(served: Served, upstream: Counting) -> None:
    told = Told()
    await killed_under_load(served, told, kills=2)
    served.start()
    await settled(served)
    await check(served, upstream, told)
    assert told.ended, "there was a load"


@pytest.mark.slow
async def test_the_server_is_killed_many_times_under_load(served: Served, upstream: Counting) -> None:
    told = Told()
    kills = 40 if os.environ.get("CHARTER_HYPOTHESIS") == "search" else 20
    await killed_under_load(served, told, kills=kills, agents=8)
    served.start()
    await settled(served)
    await check(served, upstream, told)


async def killed_at(served: Served, upstream: Counting, told: Told, when: str) -> None:
    """The server dies at one commit of the scenario; its client comes back with the same key and finishes it."""
    served.start(KILL_AT_COMMIT=when)
    key = f"key-{next(_numbers)}"
    agent = Agent(served, told)
    with suppress(Exception):
        async with served.client() as agent.client:
            await agent.scenario(key)
    served.wait_until_dead()
    known = dict(told.started)
    served.start()
    async with served.client() as agent.client:
        await agent.scenario(key)
    assert known.items() <= told.started.items(), "the same key is the same run"
    await settled(served)
    await check(served, upstream, told)


async def commits_of_the_scenario(served: Served, told: Told) -> int:
    """How many commits it takes when nobody is killed, the engine's among them."""
    counted = served.folder / "commits"
    served.start(COUNT_COMMITS=str(counted))
    agent = Agent(served, told)
    async with served.client() as agent.client:
        await agent.scenario(f"key-{next(_numbers)}")
    commits = len(counted.read_bytes())
    served.stop()
    return commits


@pytest.mark.parametrize("when", ["before:2", "after:8"])
async def test_the_server_is_killed_at_a_commit(served: Served, upstream: Counting, when: str) -> None:
    await killed_at(served, upstream, Told(), when)


@pytest.mark.slow
async def test_the_server_is_killed_at_every_commit_of_a_scenario(
    tmp_path: Path, manifest: UpstreamManifest, upstream: Counting
) -> None:
    commits = await commits_of_the_scenario(install(tmp_path / "count", manifest), Told())
    assert commits > 10
    for number in range(1, commits + 1):
        for when in ("before", "after"):
            upstream.forget()
            served = install(tmp_path / f"{when}-{number}", manifest)
            try:
                await killed_at(served, upstream, Told(), f"{when}:{number}")
            finally:
                if served.process is not None and served.process.poll() is None:
                    served.kill()
