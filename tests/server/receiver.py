"""An OTLP collector in process, for tests: keeps what is posted to it."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it arrived; ids in hexadecimal, ``parent`` empty for a root, ``links`` as (trace, span)."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, span: Span) -> Seen:
        return cls(
            name=span.name,
            trace=span.trace_id.hex(),
            id=span.span_id.hex(),
            parent=span.parent_span_id.hex(),
            kind=span.kind,
            failed=span.status.code == 2,
            attributes={item.key: _value(item.value) for item in span.attributes},
            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Receiver:
    """A collector in process: keeps what is posted to it over OTLP/HTTP."""

    def __init__(self) -> None:
        receiver = self
        self.traces, self.metrics = ExportTraceServiceRequest(), ExportMetricsServiceRequest()
        self.headers: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    receiver.traces.MergeFromString(body)
                elif self.path == "/v1/metrics":
                    receiver.metrics.MergeFromString(body)
                receiver.headers |= {name.lower(): value for name, value in self.headers.items()}
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def spans(self) -> list[Seen]:
        """All spans, in the order of their ends."""
        scopes = [scope for sent in self.traces.resource_spans for scope in sent.scope_spans]
        return [Seen.of(span) for scope in scopes for span in scope.spans]

    @property
    def instruments(self) -> set[str]:
        """The names of all metrics."""
        scopes = [scope for sent in self.metrics.resource_metrics for scope in sent.scope_metrics]
        return {metric.name for scope in scopes for metric in scope.metrics}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
