"""Telemetry: one trace a call that continues the client's, a trace a workflow, and never a secret in either."""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from charter.errors import Denied
from charter.gate.spans import ATTRIBUTES, MOMENTS, POLICY, STORE_APPEND, Attr, Metric, moment, policy
from charter.model.events import PAYLOADS
from charter.model.policy import Decision, Obligation
from charter.server import telemetry_export
from charter.server.settings import load_settings
from charter.server.telemetry import Telemetry, current_trace_id, safe_attributes, workflow_link
from tests.server.receiver import Receiver
from tests.web import Says, site

SECRET = "hunter2-correct-horse"
DECISION = Decision(
    verdict="require_approval",
    reason=f"a reason that may quote {SECRET}",
    code="approval_required",
    policy_ids=("high-risk-needs-two",),
    obligations=(Obligation(name="require_approval", policy_id="high-risk-needs-two"),),
    policy_set_hash="sha256:ab",
)


class Recorded:
    """Telemetry over in-memory exporters."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        settings = load_settings(environ={}, cwd=Path("/"))
        self.telemetry = Telemetry.configure(
            settings, exporter=self.exporter, metric_reader=self.reader, instance="srv_1", install=False
        )

    def spans(self) -> dict[str, ReadableSpan]:
        provider = self.telemetry._tracer_provider
        assert isinstance(provider, TracerProvider)
        provider.force_flush()
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    made = Recorded()
    yield made
    made.telemetry.shutdown()


def test_nothing_is_recorded_when_nothing_is_configured() -> None:
    telemetry = Telemetry.configure(load_settings(environ={}, cwd=Path("/")))
    assert not telemetry.enabled
    with telemetry.span(POLICY, {Attr.WORKFLOW: "wf_1"}) as span:
        assert not span.is_recording()
    telemetry.decided(DECISION, action="tool.invoke")
    telemetry.workflow_started("wf_1", "t@1")
    telemetry.shutdown()


def test_when_off_a_span_costs_next_to_nothing_beside_a_recorded_one(recorded: Recorded) -> None:
    def cost(telemetry: Telemetry) -> float:
        def once() -> None:
            with telemetry.span(POLICY, {Attr.WORKFLOW: "wf_1"}):
                pass

        return min(timeit.repeat(once, number=300, repeat=5))

    assert cost(Telemetry()) * 3 < cost(recorded.telemetry)  # a ratio of about 20 when measured


def test_spans_nest_and_carry_the_decision(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    with telemetry.span("request") as outer, telemetry.span(POLICY, {Attr.WORKFLOW: "wf_1", Attr.STEP: None}):
        telemetry.decided(DECISION, action="tool.invoke")
        assert current_trace_id() == f"{outer.get_span_context().trace_id:032x}"
    policy = recorded.spans()[POLICY]
    assert policy.parent is not None
    assert policy.parent.span_id == outer.get_span_context().span_id
    assert dict(policy.attributes or {}) == {
        "charter.workflow_id": "wf_1",
        "charter.action": "tool.invoke",
        "charter.decision.verdict": "require_approval",
        "charter.decision.code": "approval_required",
        "charter.policy.ids": ("high-risk-needs-two",),
        "charter.policy.set_hash": "sha256:ab",
        "charter.obligations": ("require_approval",),
    }
    assert policy.resource.attributes["service.name"] == "charter"
    assert policy.resource.attributes["service.instance.id"] == "srv_1"


def test_a_tools_run_is_an_internal_span_of_the_genai_conventions_that_tells_how_it_ended(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    with telemetry.tool_span("casebook__read", {Attr.EFFECT: "eff_1"}):
        telemetry.upstream_took(0.1, server="casebook", tool="casebook__read", outcome="succeeded", error="tool_error")
    span = recorded.spans()["execute_tool casebook__read"]
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "casebook__read",
        "charter.effect_id": "eff_1",
        "charter.upstream": "casebook",
        "charter.effect.status": "succeeded",
        "error.type": "tool_error",
    }


def test_only_known_attributes_are_set_and_long_texts_are_cut() -> None:
    found = safe_attributes({"arguments": SECRET, Attr.TOOL: "x" * 999, Attr.STEP: None})
    assert found == {Attr.TOOL: "x" * 256}


def test_an_error_is_told_by_its_code_never_by_its_text(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    for error in (Denied(f"no: {SECRET}", code="no_workflow"), ValueError(SECRET)):
        with pytest.raises(type(error)), telemetry.span(type(error).__name__):
            raise error
    spans = recorded.spans()
    assert (spans["Denied"].attributes or {})["error.type"] == "no_workflow"
    assert (spans["ValueError"].attributes or {})["error.type"] == "ValueError"
    assert all(span.status.status_code is StatusCode.ERROR for span in spans.values())
    assert not any(SECRET in span.to_json() for span in spans.values())


def test_what_other_instrumentation_writes_is_scrubbed_before_it_leaves(recorded: Recorded) -> None:
    tracer = recorded.telemetry._tracer
    assert tracer is not None
    with pytest.raises(RuntimeError), tracer.start_as_current_span("foreign"):
        raise RuntimeError(SECRET)
    span = recorded.spans()["foreign"]
    assert [event.name for event in span.events] == ["exception"]
    assert dict(span.events[0].attributes or {})["exception.type"] == "RuntimeError"
    assert SECRET not in span.to_json()


def test_all_calls_of_a_workflow_link_to_one_trace_whose_root_is_the_start(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    with telemetry.span("start"):
        telemetry.workflow_started("wf_1", "governed-session@1")
    with telemetry.span("call"):
        telemetry.annotate({Attr.TENANT: "acme"}, workflow_id="wf_1")
        telemetry.workflow_moment("wf_1", "charter.approval", {Attr.APPROVAL: "appr_1"})
    spans = recorded.spans()
    root, call, moment = spans["invoke_workflow governed-session@1"], spans["call"], spans["charter.approval"]
    wanted = workflow_link("wf_1").context
    assert root.context is not None
    assert (root.context.trace_id, root.context.span_id, root.parent) == (wanted.trace_id, wanted.span_id, None)
    assert [link.context.span_id for link in call.links] == [wanted.span_id]
    assert moment.parent is not None
    assert moment.parent.span_id == wanted.span_id
    assert call.context is not None
    assert call.context.trace_id != wanted.trace_id
    assert [link.context.span_id for link in moment.links] == [call.context.span_id]


def test_the_workflow_link_follows_from_the_id_alone() -> None:
    assert workflow_link("wf_1").context == workflow_link("wf_1").context
    assert workflow_link("wf_1").context.trace_id != workflow_link("wf_2").context.trace_id


def test_metrics_count_decisions_latencies_and_what_waits(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    waiting = 3
    telemetry.watch_pending_approvals(lambda: waiting)
    for _ in range(2):
        telemetry.decided(DECISION, action="tool.invoke")
    telemetry.call_took(0.01, command="invoke_tool")
    telemetry.upstream_took(0.005, server="casebook", tool="casebook__read", outcome="succeeded")
    found = recorded.metrics()
    decisions = found[Metric.DECISIONS][0]
    assert (decisions.value, decisions.attributes["charter.decision.verdict"]) == (2, "require_approval")
    assert found[Metric.PENDING_APPROVALS][0].value == 3
    assert (found[Metric.CALL_DURATION][0].count, found[Metric.UPSTREAM_DURATION][0].count) == (1, 1)


def test_spans_and_metrics_reach_a_collector_over_otlp() -> None:
    receiver = Receiver()
    try:
        environ = {
            "CHARTER_TELEMETRY_OTLP_ENDPOINT": receiver.url,
            "CHARTER_TELEMETRY_OTLP_HEADERS": '{"x-key": "k"}',
            "CHARTER_TELEMETRY_SERVICE_NAME": "charter-test",
        }
        telemetry = Telemetry.configure(load_settings(environ=environ, cwd=Path("/")), install=False)
        with telemetry.span(STORE_APPEND, {Attr.EVENTS: 2}):
            telemetry.decided(DECISION, action="tool.invoke")
        telemetry.shutdown()
    finally:
        receiver.close()
    sent = receiver.traces.resource_spans[0]
    assert [span.name for scope in sent.scope_spans for span in scope.spans] == [STORE_APPEND]
    assert "charter-test" in {attribute.value.string_value for attribute in sent.resource.attributes}
    names = {metric.name for metric in receiver.metrics.resource_metrics[0].scope_metrics[0].metrics}
    assert Metric.DECISIONS in names
    assert receiver.headers["x-key"] == "k"


def casebook(telemetry: Telemetry) -> Server[Any]:
    async def list_tools(ctx: ServerRequestContext[Any], params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="read", input_schema={"type": "object"})])

    async def call_tool(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        if params.arguments:
            raise MCPError(code=-32000, message=SECRET)
        with telemetry.span(POLICY):
            return CallToolResult(content=[TextContent(type="text", text=str(current_trace_id()))])

    return Server("casebook", on_list_tools=list_tools, on_call_tool=call_tool)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_continues_the_clients_trace_from_meta(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """The SDK makes the server span and reads ``traceparent``; ours are its children, in one trace."""
    assert recorded.telemetry._tracer_provider is not None
    sdk_tracer = recorded.telemetry._tracer_provider.get_tracer("mcp-python-sdk")
    monkeypatch.setattr("mcp.shared._otel._tracer", sdk_tracer)
    async with Client(casebook(recorded.telemetry), mode=mode) as client:
        with recorded.telemetry.span("agent") as agent:
            result = await client.call_tool("read", {})
        with pytest.raises(MCPError):
            await client.call_tool("read", {"password": SECRET})
    trace_id = agent.get_span_context().trace_id
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text == f"{trace_id:032x}"
    recorded.spans()
    ours = [s for s in recorded.exporter.get_finished_spans() if s.context and s.context.trace_id == trace_id]
    names = {s.name: s for s in ours}
    assert {"agent", "tools/call read", POLICY} <= set(names)
    server = names["tools/call read"]
    assert server.kind is SpanKind.SERVER
    policy_parent = names[POLICY].parent
    assert policy_parent is not None
    assert server.context is not None
    assert policy_parent.span_id == server.context.span_id
    assert not any(SECRET in s.to_json() for s in recorded.exporter.get_finished_spans())


def test_the_clients_trace_is_known_even_when_nothing_is_exported() -> None:
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=True)
    with trace.use_span(trace.NonRecordingSpan(context)), Telemetry().span(POLICY):
        assert current_trace_id() == f"{0xABC:032x}"
    assert current_trace_id() is None


def test_a_span_that_belongs_below_another_is_not_made_alone(recorded: Recorded) -> None:
    telemetry = recorded.telemetry
    with telemetry.inner_span(POLICY) as alone:
        telemetry.decided(DECISION, action="workflow.read", span=alone)
    with telemetry.span("request"), telemetry.inner_span(POLICY) as inside:
        telemetry.decided(DECISION, action="workflow.read", span=inside)
    assert set(recorded.spans()) == {"request", policy("require_approval")}


def test_a_command_that_no_request_asked_for_joins_its_workflows_trace(recorded: Recorded) -> None:
    with recorded.telemetry.command_span("advance_workflow", {}, "wf_1"):
        pass
    span = recorded.spans()["gate advance_workflow"]
    wanted = workflow_link("wf_1").context
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (wanted.trace_id, wanted.span_id)


def test_housekeeping_towards_upstreams_makes_no_traces(recorded: Recorded) -> None:
    tracer = recorded.telemetry._tracer
    assert tracer is not None
    for method in ("server/discover", "tools/list", "tools/call"):
        name = f"MCP send {method}"
        tracer.start_span(name, kind=SpanKind.CLIENT, attributes={"mcp.method.name": method}).end()
    with recorded.telemetry.span("agent"):
        tracer.start_span("asked", kind=SpanKind.CLIENT, attributes={"mcp.method.name": "tools/list"}).end()
    assert set(recorded.spans()) == {"MCP send tools/call", "agent", "asked"}


@pytest.mark.parametrize(
    ("event_type", "data", "name"),
    [
        ("TOOL_INVOKE", {"tool": "casebook__read", "arguments": {"q": SECRET}}, "TOOL_INVOKE casebook__read"),
        ("APPROVAL_REQUESTED", {"request": {"tool": "t", "reason": SECRET}}, "APPROVAL_REQUESTED t"),
        ("APPROVAL_DECISION", {"decision": "reject", "comment": SECRET}, "APPROVAL_DECISION reject"),
        ("WORKFLOW_STEP", {"step_id": "work", "status": "failed", "reason": SECRET}, "WORKFLOW_STEP work failed"),
        ("POLICY_DECISION", {"verdict": "deny", "reason": SECRET}, "POLICY_DECISION deny"),
    ],
)
def test_a_moment_says_what_happened_and_nothing_of_what_was_said(event_type: str, data: Any, name: str) -> None:
    shown = moment(event_type, data)
    assert shown is not None
    assert shown[0] == name
    assert SECRET not in str(shown)
    assert set(shown[1]) <= ATTRIBUTES


def test_what_a_person_would_not_miss_is_no_moment() -> None:
    assert moment("POLICY_DECISION", {"verdict": "permit"}) is None
    assert moment("TOOL_RESULT", {"effect_id": "eff_1"}) is None


def test_only_real_events_are_moments() -> None:
    assert set(MOMENTS) <= set(PAYLOADS)


def test_a_collector_that_takes_traces_only_is_sent_no_metrics() -> None:
    receiver = Receiver()
    try:
        environ = {"CHARTER_TELEMETRY_OTLP_ENDPOINT": receiver.url, "CHARTER_TELEMETRY_OTLP_METRICS": "false"}
        telemetry = Telemetry.configure(load_settings(environ=environ, cwd=Path("/")), install=False)
        with telemetry.span(STORE_APPEND):
            telemetry.decided(DECISION, action="tool.invoke")
        telemetry.shutdown()
    finally:
        receiver.close()
    assert [span.name for span in receiver.spans] == [STORE_APPEND]
    assert receiver.instruments == set()


@pytest.mark.parametrize(("length", "taken"), [(100, True), (telemetry_export.MAX_ANSWER + 1, False)])
def test_a_collector_s_answer_is_read_to_a_bound(length: int, taken: bool) -> None:
    """A longer one is no answer, so an endless one neither fills the memory nor holds up the end of the process."""
    with site(lambda _: Says(200, b"x" * length)) as collector, telemetry_export.short_answers() as session:
        if taken:
            assert session.post(collector.url, data=b"spans", timeout=10).content == b"x" * length
        else:
            with pytest.raises(OSError, match="too long"):
                session.post(collector.url, data=b"spans", timeout=10)
