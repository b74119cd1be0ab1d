"""An OTLP collector: what it is sent over HTTP, decoded."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.cluster.resources import eventually

SENT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    begins_ns: int
    ends_ns: int
    attributes: dict[str, Any]
    has_failed: bool
    resource: dict[str, Any]

    @property
    def nanoseconds(self) -> int:
        return self.ends_ns - self.begins_ns


class OtlpReceiver:
    """``with OtlpReceiver() as collector``; ``collector.url`` is what the environment names."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_packed = self.headers.get("Content-Encoding") == "gzip"
                assert self.path == "/v1/traces"
                receiver._take(
                    ExportTraceServiceRequest.FromString(gzip.decompress(body) if is_packed else body)
                )
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.end_headers()
                self.wfile.write(ExportTraceServiceResponse().SerializeToString())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that is to send its spans here, at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Its spans by their beginning, once that which ends last is there: of the server, or of nobody."""

        def whole() -> list[ReceivedSpan]:
            spans = [span for span in list(self._spans) if span.trace_id == trace_id]
            assert [span for span in spans if span.kind == "SPAN_KIND_SERVER" or not span.parent_id]
            return sorted(spans, key=lambda span: span.begins_ns)

        return eventually(whole, SENT_SECONDS)

    def named(self, name: str) -> list[ReceivedSpan]:
        """Of all traces, once there is one."""

        def found() -> list[ReceivedSpan]:
            spans = [span for span in list(self._spans) if span.name == name]
            assert spans
            return spans

        return eventually(found, SENT_SECONDS)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        for part in request.resource_spans:
            resource = plain(part.resource.attributes)
            for scope in part.scope_spans:
                self._spans += [received(span, resource) for span in scope.spans]


def received(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        Span.SpanKind.Name(span.kind),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        plain(span.attributes),
        span.status.code == Status.STATUS_CODE_ERROR,
        resource,
    )


def plain(attributes: list[KeyValue]) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in attributes}


def value(given: AnyValue) -> Any:
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in given.array_value.values]
    return getattr(given, kind)
