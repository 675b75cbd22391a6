"""What leaves over OTLP: spans without texts and without housekeeping, and the providers' parts that see to it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanKind, Status

from charter import __version__
from charter.server.settings_model import Settings
from charter.server.telemetry_shared import MAX_TEXT, chosen_ids

if TYPE_CHECKING:
    import requests

EXPORT_SECONDS: Final = 2.0
"""For one export with all its retries; a collector that is gone must not hold up the end of the process."""
MAX_ANSWER: Final = 65_536
"""Bytes of a collector's answer."""
MAX_NAME: Final = 256
_EXCEPTION_TEXTS: Final = ("exception.message", "exception.stacktrace")


def providers(
    settings: Settings, exporter: SpanExporter | None, metric_reader: MetricReader | None, instance: str | None
) -> tuple[TracerProvider, MeterProvider]:
    """What makes spans and metrics, and where they go: as configured, unless an exporter or reader is given."""
    resource = resource_of(settings, instance)
    limits = SpanLimits(max_span_attribute_length=MAX_TEXT)
    tracer_provider = TracerProvider(resource=resource, id_generator=Ids(), span_limits=limits)
    tracer_provider.add_span_processor(BatchSpanProcessor(Scrubbing(exporter or otlp_spans(settings))))
    readers = [metric_reader] if metric_reader else otlp_metrics(settings)
    return tracer_provider, MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=True)


class Scrubbing(SpanExporter):
    """Takes exception texts and status descriptions out before anything leaves: the SDK's spans repeat
    messages.
    """

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans without their texts."""
        return self._inner.export([_scrubbed(span) for span in spans if not _housekeeping(span)])

    def shutdown(self) -> None:
        """Stop."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is waiting."""
        return self._inner.force_flush(timeout_millis)


def _housekeeping(span: ReadableSpan) -> bool:
    """What Charter asks an upstream on its own account (discover, list, ping): each would be a trace of one span."""
    if span.parent is not None or span.kind is not SpanKind.CLIENT:
        return False
    return (span.attributes or {}).get("mcp.method.name", "tools/call") != "tools/call"


def _scrubbed(span: ReadableSpan) -> ReadableSpan:
    if not span.events and span.status.description is None and len(span.name) <= MAX_NAME:
        return span
    events = [
        Event(
            event.name,
            {name: value for name, value in (event.attributes or {}).items() if name not in _EXCEPTION_TEXTS},
            event.timestamp,
        )
        for event in span.events
    ]
    return ReadableSpan(
        name=span.name[:MAX_NAME],
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=events,
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class Ids(RandomIdGenerator):
    """Random ids, but for the root of a workflow's trace, whose ids follow from the workflow's."""

    def generate_trace_id(self) -> int:
        chosen = chosen_ids.get()
        return chosen[0] if chosen else super().generate_trace_id()

    def generate_span_id(self) -> int:
        chosen = chosen_ids.get()
        return chosen[1] if chosen else super().generate_span_id()


def resource_of(settings: Settings, instance: str | None) -> Resource:
    named = {"service.name": settings.telemetry.service_name, "service.version": __version__}
    return Resource.create({**named, **({"service.instance.id": instance} if instance else {})})


def otlp_spans(settings: Settings) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    headers = settings.telemetry.otlp_headers or None
    return OTLPSpanExporter(
        endpoint=_endpoint(settings, "traces"), headers=headers, timeout=EXPORT_SECONDS, session=short_answers()
    )


def otlp_metrics(settings: Settings) -> list[MetricReader]:
    if settings.telemetry.otlp_endpoint is None or not settings.telemetry.otlp_metrics:
        return []
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    headers = settings.telemetry.otlp_headers or None
    return [
        PeriodicExportingMetricReader(
            OTLPMetricExporter(
                endpoint=_endpoint(settings, "metrics"),
                headers=headers,
                timeout=EXPORT_SECONDS,
                session=short_answers(),
            )
        )
    ]


def short_answers() -> requests.Session:
    """A session that reads no answer without end: the exporter's own would fill the memory with it, and never stop."""
    import requests

    def read(response: requests.Response) -> requests.Response:
        until, body = time.monotonic() + EXPORT_SECONDS, bytearray()
        while part := response.raw.read1(MAX_ANSWER):
            body += part
            if len(body) > MAX_ANSWER or time.monotonic() > until:
                response.close()
                raise requests.exceptions.RequestException("the collector's answer is too long")
        response.raw = BytesIO(body)
        return response

    class Session(requests.Session):
        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
            return read(super().send(request, **{**kwargs, "stream": True}))

    return Session()


def _endpoint(settings: Settings, signal: str) -> str:
    return f"{(settings.telemetry.otlp_endpoint or '').rstrip('/')}/v1/{signal}"
