"""Which spans a choice is made of, by what the engine said of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from dllm_server.api.answers.generation import Generation
from dllm_server.api.answers.plan import ChoicePlan, Prompt
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.text.stop_strings import StopStrings
from dllm_server.engine.requests.messages import Generate, RequestStats, RequestTimes
from dllm_server.telemetry.request_metrics import RequestMetrics
from dllm_server.telemetry.request_trace import RequestTrace, TraceRequests
from dllm_server.tracing import Tracer
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from tests.server.api.scripted_engine import ScriptedEngine, Step
from tests.server.engines import make_request

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "scheme": "http",
    "path": "/v1/completions",
    "headers": [],
    "state": {"request_id": "r"},
}


class Traced:
    """A request whose choice is told of at seconds after its beginning."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.trace = RequestTrace(Tracer(provider), SCOPE)
        self.choice = self.trace.choice(None, 0, 4, "tiny")
        self._began = time.monotonic()

    def stats(self, forwards: int, admitted: float, opened: float, told: float, **more: int) -> RequestStats:
        times = RequestTimes(self._began + admitted, self._began + opened, self._began + told)
        return RequestStats(forward_passes=forwards, times=times, **more)

    def spans(self) -> list[ReadableSpan]:
        return sorted(self._kept.get_finished_spans(), key=lambda span: span.start_time or 0)

    def steps(self) -> list[tuple[str, float]]:
        """Children of the choice with their seconds."""
        spans = self.spans()
        (choice,) = [span for span in spans if span.name == "text_completion tiny"]
        mine = [span for span in spans if span.parent and span.parent.span_id == choice.context.span_id]
        return [(span.name, round((span.end_time - span.start_time) / 1e9, 1)) for span in mine]

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span


def test_a_bidirectional_choice_queues_and_then_is_blocks() -> None:
    traced = Traced()
    traced.choice.block(traced.stats(4, 1.0, 1.5, 3.0, refresh_passes=1), 8)
    traced.choice.block(traced.stats(9, 1.0, 3.5, 5.0, refresh_passes=2), 8)
    traced.choice.end("length", traced.stats(9, 1.0, 3.5, 5.0, refresh_passes=2))

    assert traced.steps() == [("queue", 1.0), ("block", 2.0), ("block", 2.0)]
    assert [span.name for span in traced.spans()].count("refresh") == 2
    attributes = dict(traced.named("text_completion tiny").attributes or {})
    assert attributes["gen_ai.usage.output_tokens"] == 16
    assert attributes["dllm.forward_passes"] == 9


def test_a_block_causal_choice_prefills_before_its_first_block() -> None:
    traced = Traced()
    traced.choice.block(traced.stats(6, 1.0, 2.0, 3.0, prefill_passes=2), 4)
    traced.choice.block(traced.stats(9, 1.0, 2.0, 4.0, prefill_passes=3), 4)
    traced.choice.end("stop", traced.stats(9, 1.0, 2.0, 4.0, prefill_passes=3))

    assert traced.steps() == [("queue", 1.0), ("prefill", 1.0), ("block", 1.0), ("block", 1.0)]
    assert "refresh" not in [span.name for span in traced.spans()]


def test_an_answer_that_begins_with_its_stop_token_still_has_a_block() -> None:
    traced = Traced()
    traced.choice.end("stop", traced.stats(3, 1.0, 1.5, 2.0, refresh_passes=1))

    assert traced.steps() == [("queue", 1.0), ("block", 1.0)]


def test_a_stop_string_adds_no_block() -> None:
    traced = Traced()
    stats = traced.stats(3, 1.0, 1.5, 2.0, refresh_passes=1)
    traced.choice.block(stats, 5)
    traced.choice.end("stop", stats)

    assert traced.steps() == [("queue", 1.0), ("block", 1.0)]


@pytest.mark.parametrize(("told", "kind"), [(True, "out_of_memory"), (False, "cancelled")])
def test_a_choice_that_does_not_come_to_its_end_says_why(told: bool, kind: str) -> None:
    traced = Traced()
    if told:
        traced.choice.fail("out_of_memory")
    traced.choice.close()

    span = traced.named("text_completion tiny")
    assert not span.status.is_ok
    assert dict(span.attributes or {})["error.type"] == kind


def test_a_choice_that_a_bug_ends_does_not_say_that_its_client_left() -> None:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))

    def break_down(request: Generate) -> list[Step]:
        raise RuntimeError("a bug")

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        engine = ScriptedEngine(break_down)
        plan = ChoicePlan(0, make_request(prompt=[1, 2]), None, Prompt([1, 2]), StopStrings([]))
        metrics = RequestMetrics(CollectorRegistry(), "tiny")
        generation = Generation(
            engine, lambda ids, **_: "", [plan], metrics, arrived_seconds=0, timeout_seconds=60
        )
        generation.start()
        with pytest.raises(ApiError):
            await anext(generation.events())
        await generation.close()

    asyncio.run(TraceRequests(answer, Tracer(provider))(SCOPE, None, None))  # type: ignore[arg-type]

    (choice,) = [span for span in kept.get_finished_spans() if span.name == "text_completion tiny"]
    assert dict(choice.attributes or {})["error.type"] == "internal_error"


@pytest.mark.parametrize(
    ("status", "outcome", "error"),
    [
        (200, None, None),
        (400, None, None),
        (503, None, "503"),
        (200, "success", None),
        (200, "cancelled", None),
        (200, "error", "error"),
    ],
)
def test_a_request_has_failed_where_the_server_has(
    status: int, outcome: str | None, error: str | None
) -> None:
    traced = Traced()

    traced.trace.end(SCOPE | {"state": {"outcome": outcome}}, status)

    root = traced.named("POST /v1/completions")
    assert dict(root.attributes or {}).get("error.type") == error
    assert root.status.is_ok == (error is None)
