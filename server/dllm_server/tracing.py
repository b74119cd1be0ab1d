"""Spans, sent by OTLP over HTTP where the standard environment names a collector. Without one nothing is
imported, and nothing is done. For the server and the operator."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib import metadata
from typing import TYPE_CHECKING

from dllm_server.extras import DISTRIBUTION, is_foreign, missing

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import SpanKind

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
CLOSE_SECONDS = 2.0  # for spans that are still to be sent

Attributes = Mapping[str, str | int | float | tuple[str, ...]]

_current: ContextVar[Span | None] = ContextVar("span", default=None)


def open_tracer(service: str, environment: Mapping[str, str] = os.environ) -> Tracer | None:
    """None where no collector is named. ``OTEL_SERVICE_NAME`` goes before ``service``. ``ValueError`` for
    another protocol, ``MissingPackageError`` without the extra."""
    if not _is_wanted(environment):
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), PROTOCOL)
    if protocol != PROTOCOL:
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL {protocol}: spans are sent as {PROTOCOL} only: leave it out and "
            "name the collector's HTTP port"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        if not is_foreign(error):
            raise
        raise missing("OTEL_EXPORTER_OTLP_ENDPOINT", ["otel"], error) from error
    version = _version()
    resource = Resource.create({"service.version": version})
    if str(resource.attributes.get("service.name")).startswith("unknown_service"):  # the SDK's, for no name
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # see close
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider, version)


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


def _is_wanted(environment: Mapping[str, str]) -> bool:
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_off or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return False
    return any(environment.get(name) for name in ENDPOINTS)


class Tracer:
    """Begins traces, and sends what ends from a thread of its own."""

    def __init__(self, provider: TracerProvider, version: str = "") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dllm_serve", version)

    def begin(
        self,
        name: str,
        attributes: Attributes,
        *,
        begins_ns: int | None = None,
        headers: Mapping[str, str] | None = None,
        is_server: bool = False,
    ) -> Span:
        """The first span of this process in a trace: a new one, or that of ``headers`` (``traceparent``). It
        begins now unless said."""
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        context = propagate.extract(headers or {})
        begins_ns = time.time_ns() if begins_ns is None else begins_ns
        return Span(self, name, begins_ns, attributes, context, SpanKind.SERVER if is_server else None)

    def start(
        self,
        name: str,
        begins_ns: int,
        attributes: Attributes,
        context: Context,
        kind: SpanKind | None,
    ) -> OtelSpan:
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(
            name,
            context,
            kind or SpanKind.INTERNAL,
            dict(attributes),
            start_time=begins_ns,
        )

    @contextmanager
    def traced(self, name: str, attributes: Attributes) -> Iterator[Span]:
        """A trace of what is done inside, whose ``stage``s are its children. An exception fails it."""
        with _entered(self.begin(name, attributes)) as span:
            yield span

    def close(self) -> None:
        """Send what has ended, within ``CLOSE_SECONDS``; a collector that does not answer keeps nobody."""
        ending = threading.Thread(target=self._provider.shutdown, name="tracer", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)


class Span:
    """One span; times are Unix nanoseconds."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        begins_ns: int,
        attributes: Attributes,
        context: Context,
        kind: SpanKind | None = None,
    ) -> None:
        self._tracer = tracer
        self._span = tracer.start(name, begins_ns, attributes, context, kind)

    @property
    def ids(self) -> dict[str, str]:
        """For log lines."""
        context = self._span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def child(self, name: str, begins_ns: int, attributes: Attributes | None = None) -> Span:
        from opentelemetry.trace import set_span_in_context

        return Span(self._tracer, name, begins_ns, attributes or {}, set_span_in_context(self._span))

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(dict(attributes))

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def fail(self, kind: str) -> None:
        """``kind`` in a word; texts of errors may hold what a client has sent."""
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", kind)

    def end(self, ends_ns: int | None = None) -> None:
        self._span.end(ends_ns)


def stage(name: str) -> AbstractContextManager[object]:
    """What is done inside as a child of the span that is under way, if one is."""
    outer = _current.get()
    return nullcontext() if outer is None else _entered(outer.child(name, time.time_ns()))


@contextmanager
def _entered(span: Span) -> Iterator[Span]:
    token = _current.set(span)
    try:
        yield span
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()
