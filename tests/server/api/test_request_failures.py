"""Every way in which a request can end releases its engine request and says so in OpenAI's shape."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from dllm_server.engine.requests.messages import FailureReason, FinishReason
from scripted_engine import Script, Wait, block, count_up, failed, finished, hang, one_block_then
from scripted_server import ScriptedServer, eventually

PROMPT = {"prompt": [1, 2, 3], "max_tokens": 8}


def complete(server: ScriptedServer, **body: Any) -> httpx.Response:
    return server.http.post("/v1/completions", json=PROMPT | body)


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@contextmanager
def open_request(server: ScriptedServer, **changes: Any) -> Iterator[socket.socket]:
    """Send a request over a bare socket, wait until the engine has it; hang up after the ``with``."""
    body = PROMPT | changes
    content = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=300) as connection:
        connection.sendall(head.encode() + content)
        eventually(lambda: len(server.engine.open) == body.get("n", 1), "the engine requests are open")
        yield connection


def metric(server: ScriptedServer, sample: str) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(sample + " ")))


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_request_is_released(stream: bool) -> None:
    with ScriptedServer() as server:
        assert complete(server, stream=stream).status_code == 200

        assert not server.engine.open
        assert server.service.admission.open_choices == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (FailureReason.TOO_LARGE, 400, "context_length_exceeded"),
        (FailureReason.OUT_OF_MEMORY, 503, "out_of_memory"),
        (FailureReason.SHUTTING_DOWN, 503, "shutting_down"),
        (FailureReason.ENGINE_ERROR, 500, "engine_error"),
    ],
)
def test_a_failed_request_has_the_status_of_its_reason(
    stream: bool, reason: FailureReason, status: int, code: str
) -> None:
    with ScriptedServer(lambda request: [failed(request, reason)]) as server:
        response = complete(server, stream=stream)

        assert (response.status_code, error_of(response)["code"]) == (status, code)
        assert not server.engine.open


def test_a_failure_after_the_first_block_ends_the_stream_with_an_error_event() -> None:
    script = one_block_then(lambda request: failed(request, FailureReason.OUT_OF_MEMORY))
    with ScriptedServer(script) as server:
        events = [line for line in complete(server, stream=True).text.splitlines() if line]

        assert "choices" in json.loads(events[0].removeprefix("data: "))
        assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "out_of_memory"
        assert len(events) == 2
        eventually(lambda: metric(server, 'dllm_requests_total{status="unavailable"}') == 1, "it is counted")


def test_a_request_that_takes_too_long_is_cancelled_with_504() -> None:
    with ScriptedServer(hang, request_timeout_seconds=0.05) as server:
        response = complete(server)

        assert (response.status_code, error_of(response)["code"]) == (504, "timeout")
        assert not server.engine.open


@pytest.mark.parametrize("script", [hang, one_block_then(lambda _: Wait.FOREVER)], ids=["queued", "begun"])
def test_a_stream_that_takes_too_long_ends_with_an_error_event(script: Script) -> None:
    with ScriptedServer(script, request_timeout_seconds=0.5) as server:
        response = complete(server, stream=True)

        assert response.status_code == 200
        assert '"code": "timeout"' in response.text.splitlines()[-2]
        eventually(lambda: not server.engine.open, "the engine request is released")


@pytest.mark.parametrize(
    ("stream", "received"), [(False, b""), (True, b""), (True, b"data: ")], ids=["whole", "queued", "begun"]
)
def test_a_client_that_leaves_frees_its_requests(stream: bool, received: bytes) -> None:
    script = one_block_then(lambda _: Wait.FOREVER) if received else hang
    with ScriptedServer(script) as server:
        with open_request(server, stream=stream, n=3) as connection:
            answer = b""
            while received not in answer:
                answer += connection.recv(65536)

        eventually(lambda: not server.engine.open, "the engine requests are released")
        eventually(lambda: server.service.admission.open_choices == 0, "the places are free")
        eventually(lambda: metric(server, "dllm_requests_cancelled_total") == 1, "it is counted")


def test_one_failing_choice_releases_the_others() -> None:
    def script(request: Any) -> Any:
        if request.request_id.endswith("-1"):
            return [failed(request, FailureReason.ENGINE_ERROR)]
        return [Wait.FOREVER]

    with ScriptedServer(script) as server:
        assert complete(server, n=3).status_code == 500
        assert not server.engine.open


def test_a_stop_string_releases_the_request_with_the_counts_of_its_block() -> None:
    with ScriptedServer() as server:
        body = complete(server, prompt="t1", max_tokens=100, stop="t5 t6", return_token_ids=True).json()

        assert body["choices"][0] == {
            "index": 0,
            "text": "t0 t1 t2 t3 t4 ",
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": "t5 t6",
            "prompt_token_ids": [1],
            "token_ids": [0, 1, 2, 3, 4, 5, 6],
        }
        assert body["usage"] == {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
        assert body["dllm_stats"] == {
            "forward_passes": 8,
            "refresh_passes": 2,
            "tokens_per_forward": 0.875,
            "queue_seconds": 0.001,
        }
        assert not server.engine.open


def test_a_bug_below_a_choice_is_a_500_that_tells_nothing() -> None:
    def script(request: Any) -> Any:
        raise RuntimeError("secret")

    with ScriptedServer(script) as server:
        response = complete(server)

        assert (response.status_code, error_of(response)["message"]) == (500, "Internal error.")
        assert not server.engine.open


def test_a_request_that_the_engine_drops_is_a_503() -> None:
    script = one_block_then(lambda request: finished(request, reason=FinishReason.CANCELLED))
    with ScriptedServer(script) as server:
        assert complete(server).status_code == 503


def test_a_full_queue_refuses_with_429_and_takes_all_choices_or_none() -> None:
    with ScriptedServer(hang, slots=2, max_queued_requests=2, request_timeout_seconds=60) as server:
        with open_request(server, n=3):
            refused = complete(server, n=2)

            assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
            assert refused.headers["retry-after"] == "1"
            assert len(server.engine.open) == 3
            assert metric(server, "dllm_requests_refused_total") == 1
        server.engine.script = count_up
        eventually(lambda: not server.engine.open, "the first request is released")
        assert complete(server, n=2).status_code == 200


def test_more_choices_than_the_server_ever_holds_are_a_400() -> None:
    with ScriptedServer(slots=1, max_queued_requests=2) as server:
        response = complete(server, n=4)

        assert (response.status_code, error_of(response)["param"]) == (400, "n")


def test_an_empty_block_before_the_end_is_an_empty_answer() -> None:
    with ScriptedServer(
        lambda r: [block(r, [], forwards=1), finished(r, reason=FinishReason.STOP)]
    ) as server:
        choice = complete(server).json()["choices"][0]

        assert (choice["text"], choice["finish_reason"]) == ("", "stop")
