"""A governed call over HTTP is one trace, from the client's own span to the upstream's answer, and its run another.

A real server process exports to a collector in this process; what an agent's traces would begin with is sent in ``_meta``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from mcp import Client
from opentelemetry import trace

from charter.gate.spans import ATTRIBUTES, Attr, Metric
from charter.server.telemetry import workflow_link
from charter.store.sqlite import SqliteStore
from tests.cli.support import Project, charter, copied
from tests.server.receiver import Receiver, Seen

pytestmark = pytest.mark.anyio

SECRET = "hunter2-correct-horse"
READ, WRITE, DENIED = 0xA1, 0xA2, 0xA3
SERVER, CLIENT = 2, 3


@dataclass
class Told:
    """What the collector heard of one story, and what the record says of it."""

    receiver: Receiver
    workflow_id: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, number: int) -> list[Seen]:
        """The spans of the trace that a client began under this number."""
        return [span for span in self.receiver.spans if span.trace == f"{number:032x}"]

    @property
    def run(self) -> list[Seen]:
        """The spans of the run's own trace."""
        wanted = f"{workflow_link(self.workflow_id).context.trace_id:032x}"
        return [span for span in self.receiver.spans if span.trace == wanted]


@contextmanager
def agent_span(number: int) -> Iterator[None]:
    """As if the agent traced itself: its trace is current while it calls."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(trace_id=number, span_id=number, is_remote=False, trace_flags=flags)
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


@pytest.fixture(scope="module")
async def told(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    template = tmp_path_factory.mktemp("traced") / "template"
    assert charter("init", str(template), "--person", "ann", cwd=template.parent).code == 0
    receiver = Receiver()
    try:
        moved = copied(template, template.parent / "project")
        project = Project(moved.folder, moved.port, {"CHARTER_TELEMETRY_OTLP_ENDPOINT": receiver.url})
        story = Told(receiver)
        with project.serving():
            async with project.client(project.token("--agent", "scribe", "--acts-for", "ann")) as client:
                await play(story, project, client)
        story.events = await record(project)
        yield story
    finally:
        receiver.close()


async def play(told: Told, project: Project, client: Client) -> None:
    """Denied outside a run; then a read, and a write that a second person approves on the command line."""

    async def call(name: str, /, **arguments: Any) -> dict[str, Any]:
        return (await client.call_tool(name, arguments)).structured_content or {}

    with agent_span(DENIED):
        await call("invoke_tool", tool="casebook__read_note", arguments={"name": SECRET})
    started = await call("start_workflow", purpose=f"About {SECRET}")
    told.workflow_id = started["workflow_id"]
    ids = {name: started[name] for name in ("workflow_id", "agent_invocation_id")}
    with agent_span(READ):
        await call("casebook__read_note", **ids, name="welcome")
    note = {"name": "case", "text": f"The word is {SECRET}."}
    proposed = await call("propose_action", **ids, tool="casebook__write_note", arguments=note, reason=SECRET)
    asked = await call("request_approval", **ids, proposal_id=proposed["proposal_id"])
    token = project.token("--human", "bob", "--role", "approver")
    project.ok("approvals", "approve", asked["approval_id"], "--yes", env={"CHARTER_TOKEN": token})
    with agent_span(WRITE):
        await call("invoke_tool", **ids, proposal_id=proposed["proposal_id"])


async def record(project: Project) -> list[dict[str, Any]]:
    """Every event, as stored."""
    store = SqliteStore(project.database)
    await store.open()
    try:
        return [orjson.loads(item.leaf) for item in await store.log("default", 0, 1000)]
    finally:
        await store.close()


def below(spans: list[Seen], name: str) -> set[str]:
    """The names of the spans right below the one of this name."""
    (parent,) = [span for span in spans if span.name == name]
    return {span.name for span in spans if span.parent == parent.id}


def named(spans: list[Seen], name: str) -> Seen:
    return next(span for span in spans if span.name == name)


async def test_one_call_is_one_trace_that_begins_with_the_clients_own_span(told: Told) -> None:
    spans = told.of(READ)
    server = named(spans, "tools/call casebook__read_note")
    assert (server.kind, server.parent) == (SERVER, f"{READ:016x}")
    assert below(spans, server.name) == {"gate invoke_tool"}
    assert below(spans, "gate invoke_tool") == {"policy permit", "store append", "execute_tool casebook__read_note"}
    assert below(spans, "execute_tool casebook__read_note") == {"MCP send tools/call read_note"}
    assert named(spans, "MCP send tools/call read_note").kind == CLIENT


async def test_the_intent_is_stored_before_the_call_and_the_outcome_after_it(told: Told) -> None:
    stored = [span.attributes[Attr.EVENT_TYPES] for span in told.of(READ) if span.name == "store append"]
    assert stored == [["POLICY_DECISION", "TOOL_INVOKE"], ["TOOL_RESULT"]]


async def test_the_policy_span_tells_the_decision(told: Told) -> None:
    permit, deny = named(told.of(READ), "policy permit"), named(told.of(DENIED), "policy deny")
    assert permit.attributes[Attr.VERDICT] == "permit"
    assert permit.attributes[Attr.POLICIES] == ["tools-in-workflow"]
    assert permit.attributes[Attr.POLICY_SET].startswith("sha256:")
    assert permit.attributes[Attr.ACTION] == "tool.invoke"
    assert "workflow-required" in deny.attributes[Attr.POLICIES]


async def test_a_denied_call_is_an_error_that_names_its_code(told: Told) -> None:
    spans = told.of(DENIED)
    gate = named(spans, "gate invoke_tool")
    assert (gate.failed, gate.attributes[Attr.ERROR], gate.attributes[Attr.VERDICT]) == (
        True,
        "workflow_required",
        "deny",
    )
    assert not any(span.name.startswith("execute_tool") for span in spans)


async def test_what_runs_tells_how_it_ended(told: Told) -> None:
    ran = named(told.of(WRITE), "execute_tool casebook__write_note")
    assert ran.attributes[Attr.OUTCOME] == "succeeded"
    assert ran.attributes[Attr.SERVER] == "casebook"
    assert not ran.failed


async def test_the_events_of_the_call_carry_its_trace_id(told: Told) -> None:
    of_read = [event["type"] for event in told.events if event.get("trace_id") == f"{READ:032x}"]
    assert {"POLICY_DECISION", "TOOL_INVOKE", "TOOL_RESULT"} <= set(of_read)
    of_denied = [event["type"] for event in told.events if event.get("trace_id") == f"{DENIED:032x}"]
    assert of_denied == ["POLICY_DECISION"]


async def test_the_run_has_a_trace_of_its_own_that_all_its_calls_link_to(told: Told) -> None:
    root = named(told.run, "invoke_workflow governed-session@1")
    assert root.parent == ""
    assert {span.parent for span in told.run if span.id != root.id} == {root.id}
    names = [span.name for span in told.run]
    wanted = [
        "TOOL_INVOKE casebook__read_note",
        "APPROVAL_REQUESTED casebook__write_note",
        "APPROVAL_DECISION approve",  # made by another process
        "TOOL_INVOKE casebook__write_note",
    ]
    assert set(wanted) <= set(names)
    invoked = named(told.run, "TOOL_INVOKE casebook__read_note")
    assert [linked for linked, _ in invoked.links] == [f"{READ:032x}"]
    for number in (READ, WRITE):
        server = next(span for span in told.of(number) if span.kind == SERVER)
        assert (root.trace, root.id) in server.links
        assert server.attributes[Attr.CONVERSATION] == told.workflow_id


async def test_no_trace_is_a_single_stray_span(told: Told) -> None:
    sizes: dict[str, int] = {}
    for span in told.receiver.spans:
        sizes[span.trace] = sizes.get(span.trace, 0) + 1
    stray = {span.name for span in told.receiver.spans if sizes[span.trace] == 1}
    assert {name for name in stray if name.startswith(("gate", "policy", "store", "MCP send"))} == set()


async def test_nothing_that_was_said_leaves_and_no_unknown_name_of_ours(told: Told) -> None:
    assert SECRET.encode() not in told.receiver.traces.SerializeToString()
    assert SECRET.encode() not in told.receiver.metrics.SerializeToString()
    ours = {name for span in told.receiver.spans for name in span.attributes if name.startswith("charter.")}
    assert ours
    assert ours <= ATTRIBUTES


async def test_metrics_arrive_with_the_traces(told: Told) -> None:
    wanted = {Metric.DECISIONS, Metric.CALL_DURATION, Metric.UPSTREAM_DURATION, Metric.PENDING_APPROVALS}
    assert wanted <= told.receiver.instruments
