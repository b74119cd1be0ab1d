"""Traces of requests, as a collector gets them from a server."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from dllm_server.tracing import open_tracer

from tests.observability.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.server.api.real_server import RealServer

CHAT = {"messages": [{"role": "user", "content": "What is 3 + 4?"}], "max_tokens": 256, "ignore_eos": True}
NEAR = 0.02  # of the measured latency
TRIES = 8


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(collector: OtlpReceiver) -> Iterator[RealServer]:
    with RealServer(model="embedded", environment=collector.environment) as server:
        yield server


def named(trace_id: str, parent: str = "00f067aa0ba902b7") -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{parent}-01"}


def children(spans: Sequence[ReceivedSpan], parent: ReceivedSpan) -> list[ReceivedSpan]:
    return [span for span in spans if span.parent_id == parent.span_id]


def of_name(spans: Sequence[ReceivedSpan], name: str) -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


def parts(spans: Sequence[ReceivedSpan]) -> list[ReceivedSpan]:
    """What a request of one choice spent its time with, in order."""
    (choice,) = [span for span in spans if "gen_ai.operation.name" in span.attributes]
    return [of_name(spans, "prepare"), *children(spans, choice), of_name(spans, "respond")]


def ask(server: RealServer, **body: Any) -> tuple[str, float]:
    """The trace's id, and the seconds that the client measured."""
    trace_id = secrets.token_hex(16)
    began = time.perf_counter()
    answer = server.http.post("/v1/chat/completions", json=CHAT | body, headers=named(trace_id))
    seconds = time.perf_counter() - began
    assert answer.status_code == 200, answer.text
    return trace_id, seconds


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_request_is_a_trace_from_http_through_queue_refresh_and_blocks_to_the_last_byte(
    server: RealServer, collector: OtlpReceiver, stream: bool
) -> None:
    trace_id, _ = ask(server, stream=stream)

    spans = collector.trace(trace_id)

    root = of_name(spans, "POST /v1/chat/completions")
    (choice,) = [span for span in spans if span.name.startswith("chat ")]
    blocks = [span for span in spans if span.name == "block"]
    assert [span.name for span in children(spans, root)] == ["prepare", choice.name, "respond"]
    assert [span.name for span in children(spans, choice)] == ["queue", *["block"] * len(blocks)]
    assert len(blocks) == 256 // choice.attributes["dllm.block_length"]
    assert [[span.name for span in children(spans, block)] for block in blocks] == [["refresh"]] * len(blocks)
    steps = parts(spans)
    assert [before.ends_ns for before in steps[:-1]] == [after.begins_ns for after in steps[1:]]
    assert (steps[0].begins_ns, steps[-1].ends_ns) == (root.begins_ns, root.ends_ns)


def test_the_spans_sum_to_the_latency_that_the_client_measures(
    server: RealServer, collector: OtlpReceiver
) -> None:
    """Within 2%, in one request of several: what else the machine does is in the client's time alone."""
    gaps = []
    for _ in range(TRIES):
        trace_id, seconds = ask(server)
        summed = sum(span.nanoseconds for span in parts(collector.trace(trace_id))) / 1e9
        gaps.append(abs(seconds - summed) / seconds)
        if gaps[-1] <= NEAR:
            return
    pytest.fail(f"apart by {gaps}")


def test_a_trace_goes_on_with_its_callers_and_says_what_the_conventions_ask_for(
    server: RealServer, collector: OtlpReceiver
) -> None:
    trace_id, _ = ask(server, temperature=0.5)

    spans = collector.trace(trace_id)

    root = of_name(spans, "POST /v1/chat/completions")
    assert (root.parent_id, root.kind) == ("00f067aa0ba902b7", "SPAN_KIND_SERVER")
    assert root.resource["service.name"] == "dllm-server"
    assert root.attributes["http.request.method"] == "POST"
    assert root.attributes["http.route"] == "/v1/chat/completions"
    assert root.attributes["http.response.status_code"] == 200
    (choice,) = [span for span in spans if "gen_ai.operation.name" in span.attributes]
    told = {name: value for name, value in choice.attributes.items() if name.startswith("gen_ai.")}
    assert told.pop("gen_ai.usage.input_tokens") > 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "dllm",
        "gen_ai.request.model": "dllm-embedded",
        "gen_ai.response.model": "dllm-embedded",
        "gen_ai.request.max_tokens": 256,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.top_k": 0,
        "gen_ai.usage.output_tokens": 256,
        "gen_ai.response.finish_reasons": ["length"],
    }
    passes = [span.attributes["dllm.forward_passes"] for span in spans if span.name == "block"]
    assert sum(passes) == choice.attributes["dllm.forward_passes"]


def test_log_lines_of_a_request_carry_its_trace(server: RealServer, collector: OtlpReceiver) -> None:
    trace_id, _ = ask(server)
    root = of_name(collector.trace(trace_id), "POST /v1/chat/completions")

    lines = [json.loads(line) for line in list(server.log) if trace_id in line]

    assert [(line["event"], line["trace_id"], line["span_id"]) for line in lines] == [
        ("request", trace_id, root.span_id)
    ]


def test_a_refused_request_is_a_trace_without_text_of_the_client(
    server: RealServer, collector: OtlpReceiver
) -> None:
    trace_id = secrets.token_hex(16)
    server.http.post("/v1/completions", json={"prompt": "a secret", "nonsense": 1}, headers=named(trace_id))

    (span,) = collector.trace(trace_id)

    assert span.attributes["http.response.status_code"] == 400
    assert not span.has_failed  # the client's mistake
    assert "secret" not in str(span)


def test_probes_and_scrapes_are_no_traces(server: RealServer, collector: OtlpReceiver) -> None:
    quiet, traced = secrets.token_hex(16), secrets.token_hex(16)
    for path in ("/health", "/ready", "/metrics"):
        server.http.get(path, headers=named(quiet))
    server.http.get("/v1/models", headers=named(traced))

    assert [span.name for span in collector.trace(traced)] == ["GET /v1/models"]
    assert [span for span in collector._spans if span.trace_id == quiet] == []


def test_without_a_collector_nothing_is_imported() -> None:
    code = (
        "import sys; import dllm_server.api.app; from dllm_server.tracing import open_tracer, stage\n"
        "assert open_tracer('x', {}) is None\n"
        "with stage('y'): pass\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exp'))])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_collector_that_does_not_answer_keeps_no_process_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its timeout is longer than this test's."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
        code = (
            "from dllm_server.tracing import open_tracer\n"
            "tracer = open_tracer('x')\n"
            "tracer.begin('span', {}).end()\n"
            "tracer.close()"
        )

        subprocess.run([sys.executable, "-c", code], check=True)


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_the_standard_variables_turn_it_off(off: dict[str, str]) -> None:
    assert open_tracer("x", ENDPOINT | off) is None


def test_another_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL grpc: spans are sent as http/protobuf"):
        open_tracer("x", ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
