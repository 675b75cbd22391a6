"""OpenTelemetry: for looking, never for proof (the events are the record; an exporter may drop spans).

Off unless ``[telemetry] otlp_endpoint`` is set or the host program has put its own tracer provider in place;
then every helper is a no-op of well under 5 µs. Nothing from a call's arguments or results reaches a span:
only the attribute names of ``spans.Attr`` are set, and what is exported has exception texts and status
descriptions taken out, those that the MCP SDK writes included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from charter import __version__
from charter.errors import CharterError
from charter.gate.spans import ATTRIBUTES, Attr, Metric, execute_tool, governed, invoke_workflow, moment, policy
from charter.model.policy import Decision
from charter.server.settings_model import Settings
from charter.server.telemetry_shared import MAX_TEXT, chosen_ids
from charter.store.port import NewEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace.export import SpanExporter

SCOPE = "charter"
_NOTHING: AbstractContextManager[Span] = nullcontext(trace.INVALID_SPAN)


class Telemetry:
    """Spans and metrics of one server.

    ``Telemetry()`` is off; ``Telemetry.configure(settings)`` is as configured.
    """

    def __init__(
        self, tracer_provider: trace.TracerProvider | None = None, meter_provider: metrics.MeterProvider | None = None
    ) -> None:
        self._tracer_provider, self._meter_provider = tracer_provider, meter_provider
        self._tracer = tracer_provider.get_tracer(SCOPE, __version__) if tracer_provider else None
        meter = (meter_provider or metrics.NoOpMeterProvider()).get_meter(SCOPE, __version__)
        self._meter, self._measuring = meter, meter_provider is not None
        self._decisions = meter.create_counter(Metric.DECISIONS, "{decision}", "Policy decisions by verdict")
        self._calls = meter.create_histogram(Metric.CALL_DURATION, "s", "Governed calls, from request to reply")
        self._upstreams = meter.create_histogram(Metric.UPSTREAM_DURATION, "s", "The upstream's share of a call")

    @classmethod
    def configure(
        cls,
        settings: Settings,
        *,
        exporter: SpanExporter | None = None,
        metric_reader: MetricReader | None = None,
        instance: str | None = None,
        install: bool = True,
    ) -> Telemetry:
        """Providers as configured. ``install`` makes the tracer provider the process's, so that the MCP SDK
        uses it.

        ``exporter`` and ``metric_reader`` take the place of OTLP (tests, other back ends). A provider that
        the host has installed is used as it is; exporting and its secrets are then the host's business.
        """
        hosted = trace.get_tracer_provider()
        if exporter is None and metric_reader is None and settings.telemetry.otlp_endpoint is None:
            if isinstance(hosted, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                return cls()
            return cls(hosted, metrics.get_meter_provider())
        from charter.server.telemetry_export import providers  # the SDK is a quarter of a command's start

        tracer_provider, meter_provider = providers(settings, exporter, metric_reader, instance)
        if install:
            trace.set_tracer_provider(tracer_provider)
            metrics.set_meter_provider(meter_provider)
        return cls(tracer_provider, meter_provider)

    @property
    def enabled(self) -> bool:
        """Whether spans are made at all."""
        return self._tracer is not None

    def span(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue | None] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] = (),
    ) -> AbstractContextManager[Span]:
        """A span around a block. An exception that leaves it marks the span with its code or class, never its
        text.

        Attributes that ``spans.Attr`` does not name, and those that are None, are left out.
        """
        return _NOTHING if self._tracer is None else self._recorded(self._tracer, name, attributes, kind, links)

    def inner_span(
        self, name: str, attributes: Mapping[str, AttributeValue | None] | None = None
    ) -> AbstractContextManager[Span]:
        """A span that makes sense below another one only: where there is none, none is made."""
        if self._tracer is None or not trace.get_current_span().get_span_context().is_valid:
            return _NOTHING
        return self._recorded(self._tracer, name, attributes, SpanKind.INTERNAL, ())

    def command_span(
        self, command: str, attributes: Mapping[str, AttributeValue | None], workflow_id: str | None
    ) -> AbstractContextManager[Span]:
        """The span of one governed command, below the request's. What no request asked for (the engine, the command
        line) joins the workflow's own trace, so that no trace of a single idle span is left lying about.
        """
        if self._tracer is None:
            return _NOTHING
        parent = None
        if workflow_id is not None and not trace.get_current_span().get_span_context().is_valid:
            parent = _workflow_context(workflow_id)
        return self._recorded(self._tracer, governed(command), attributes, SpanKind.INTERNAL, (), parent)

    def tool_span(self, tool: str, attributes: Mapping[str, AttributeValue | None]) -> AbstractContextManager[Span]:
        """The span of a governed tool's run. The wire below it makes the client's span of the upstream request."""
        if self._tracer is None:
            return _NOTHING
        named = {Attr.OPERATION: "execute_tool", Attr.TOOL: tool, **attributes}
        return self._recorded(self._tracer, execute_tool(tool), named, SpanKind.INTERNAL, ())

    def annotate(self, attributes: Mapping[str, AttributeValue | None], workflow_id: str | None = None) -> None:
        """Put attributes on the current span (the SDK's request span, for one) and link it to its workflow's
        trace.
        """
        if self._tracer is None:
            return
        span = trace.get_current_span()
        if workflow_id is not None:
            attributes = {**attributes, Attr.WORKFLOW: workflow_id, Attr.CONVERSATION: workflow_id}
            span.add_link(workflow_link(workflow_id).context)
        span.set_attributes(safe_attributes(attributes))

    def decided(self, decision: Decision, *, action: str, span: Span | None = None) -> None:
        """Count a decision and describe it on ``span``, which takes its name from it (default: the current one)."""
        if self._measuring:
            self._decisions.add(1, {Attr.VERDICT: decision.verdict, Attr.ACTION: action})
        if self._tracer is not None:
            if span is not None:
                span.update_name(policy(decision.verdict))
            (span or trace.get_current_span()).set_attributes(decision_attributes(decision, action))

    def call_took(self, seconds: float, *, command: str, error: str | None = None) -> None:
        """Record how long a governed command took altogether; ``error`` is the code it ended with, None when well."""
        if self._measuring:
            self._calls.record(seconds, safe_attributes({Attr.COMMAND: command, Attr.ERROR: error}))

    def upstream_took(self, seconds: float, *, server: str, tool: str, outcome: str, error: str | None = None) -> None:
        """Record how long the upstream took of it, and on the current span (the tool's) how that ended."""
        named = {Attr.SERVER: server, Attr.TOOL: tool, Attr.OUTCOME: outcome, Attr.ERROR: error}
        if self._measuring:
            self._upstreams.record(seconds, safe_attributes(named))
        if self._tracer is not None:
            span = trace.get_current_span()
            span.set_attributes(safe_attributes(named))
            if error is not None:
                span.set_status(StatusCode.ERROR)

    def watch_pending_approvals(self, count: Callable[[], int]) -> None:
        """``count`` is asked, from the exporter's thread, whenever metrics are collected: it must not block."""

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            yield Observation(count())

        self._meter.create_observable_gauge(
            Metric.PENDING_APPROVALS, [observe], "{approval}", "Approvals that wait for people"
        )

    def workflow_started(self, workflow_id: str, template: str) -> None:
        """Make the root of the workflow's own trace, the target of every ``workflow_link``; it links back to
        the start.
        """
        if self._tracer is None:
            return
        root = workflow_link(workflow_id).context
        named = {
            Attr.OPERATION: "invoke_workflow",
            Attr.WORKFLOW_NAME: template,
            Attr.WORKFLOW: workflow_id,
            Attr.CONVERSATION: workflow_id,
        }
        current = trace.get_current_span().get_span_context()
        token = chosen_ids.set((root.trace_id, root.span_id))
        try:
            self._tracer.start_span(
                invoke_workflow(template),
                context=Context(),
                attributes=safe_attributes(named),
                links=[Link(current)] if current.is_valid else [],
            ).end()
        finally:
            chosen_ids.reset(token)

    def committed(self, stream: str, events: Sequence[NewEvent]) -> None:
        """Show in the workflow's own trace what was put on record; the record itself is the event."""
        if self._tracer is None:
            return
        for event in events:
            if event.type == "WORKFLOW_STARTED":
                self.annotate({}, stream)
                self.workflow_started(stream, str(event.data["template"]))
            elif (shown := moment(event.type, event.data)) is not None and stream.startswith("wf_"):
                self.workflow_moment(stream, *shown)

    def workflow_moment(self, workflow_id: str, name: str, attributes: Mapping[str, AttributeValue | None]) -> None:
        """A short span in the workflow's own trace (an approval asked for, decided), linked to the current
        call.

        A wait of days is never an open span: it would be lost in a crash. Each end of it is a moment.
        """
        if self._tracer is None:
            return
        current = trace.get_current_span().get_span_context()
        named = {**attributes, Attr.WORKFLOW: workflow_id}
        links = [Link(current)] if current.is_valid else []
        parent = _workflow_context(workflow_id)
        self._tracer.start_span(name, context=parent, attributes=safe_attributes(named), links=links).end()

    def shutdown(self) -> None:
        """Send what is waiting, and stop. Blocks for some four seconds when the collector does not answer."""
        for provider in (self._tracer_provider, self._meter_provider):
            if callable(shutdown := getattr(provider, "shutdown", None)):  # the API's own have none
                shutdown()

    @contextmanager
    def _recorded(
        self,
        tracer: trace.Tracer,
        name: str,
        attributes: Mapping[str, AttributeValue | None] | None,
        kind: SpanKind,
        links: Sequence[Link],
        parent: Context | None = None,
    ) -> Iterator[Span]:
        with tracer.start_as_current_span(
            name,
            context=parent,
            kind=kind,
            attributes=safe_attributes(attributes or {}),
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                code = error.error_code if isinstance(error, CharterError) else type(error).__qualname__
                span.set_attribute(Attr.ERROR, code)
                span.set_status(StatusCode.ERROR)
                raise


def workflow_link(workflow_id: str) -> Link:
    """A link to the workflow's own trace; its ids follow from the workflow's id, so no state is kept for it."""
    material = hashlib.sha256(b"charter.workflow\x00" + workflow_id.encode()).digest()
    context = SpanContext(
        trace_id=int.from_bytes(material[:16], "big") or 1,
        span_id=int.from_bytes(material[16:24], "big") or 1,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return Link(context)


def _workflow_context(workflow_id: str) -> Context:
    return trace.set_span_in_context(trace.NonRecordingSpan(workflow_link(workflow_id).context), Context())


def current_trace_id() -> str | None:
    """The trace that is being recorded or continued now, as 32 hexadecimal digits; for the event's
    ``trace_id``.
    """
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def decision_attributes(decision: Decision, action: str) -> dict[str, AttributeValue]:
    """A policy decision as span attributes."""
    return safe_attributes(
        {
            Attr.ACTION: action,
            Attr.VERDICT: decision.verdict,
            Attr.CODE: decision.code,
            Attr.POLICIES: decision.policy_ids or None,
            Attr.POLICY_SET: decision.policy_set_hash,
            Attr.OBLIGATIONS: tuple(obligation.name for obligation in decision.obligations) or None,
        }
    )


def safe_attributes(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """Those with a known name and a value; texts are cut at 256 characters."""
    return {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None and name in ATTRIBUTES
    }
