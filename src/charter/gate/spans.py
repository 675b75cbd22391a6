"""Spans and metrics of the governed road; the names are here and nowhere else. Spans are for viewing, events are the record."""

from __future__ import annotations

from opentelemetry import metrics, trace

from charter.model.policy import Decision

tracer = trace.get_tracer("charter")
_meter = metrics.get_meter("charter")

COMMAND = "charter.command"
POLICY = "charter.policy.evaluate"
APPEND = "charter.store.append"
RUN_TOOL = "execute_tool"

WORKFLOW_ID = "charter.workflow_id"
INVOCATION_ID = "charter.agent_invocation_id"
TENANT = "charter.tenant"
TOOL = "gen_ai.tool.name"
OPERATION = "gen_ai.operation.name"
VERDICT = "charter.decision.verdict"
CODE = "charter.decision.code"
POLICY_IDS = "charter.policy.ids"
POLICY_SET = "charter.policy.set_hash"
OBLIGATIONS = "charter.obligations"
ERROR_TYPE = "error.type"

decisions = _meter.create_counter("charter.decisions", unit="{decision}", description="Policy decisions by verdict.")
command_seconds = _meter.create_histogram("charter.command.duration", unit="s", description="Governed commands.")
upstream_seconds = _meter.create_histogram(
    "charter.upstream.duration", unit="s", description="Calls of upstream tools."
)


def describe(span: trace.Span, decision: Decision) -> None:
    """Put a decision on a span; never arguments or results."""
    decisions.add(1, {VERDICT: decision.verdict})
    if span.is_recording():
        span.set_attributes(
            {
                VERDICT: decision.verdict,
                CODE: decision.code,
                POLICY_IDS: decision.policy_ids,
                POLICY_SET: decision.policy_set_hash,
                OBLIGATIONS: tuple(item.name for item in decision.obligations),
            }
        )
