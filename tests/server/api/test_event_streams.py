"""What a stream sends, and when: its status line at once, comments while it waits, errors as events."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from dllm_server.engine.requests.messages import FailureReason
from raw_http import connect, read_until, request_bytes
from scripted_engine import Step, Wait, block, count_up, failed, finished, hang
from scripted_server import ScriptedServer, eventually

STREAM = {"prompt": [1, 2, 3], "max_tokens": 8, "stream": True}
OFTEN = {"stream_keep_alive_seconds": 0.02}


def wait_first(request: Any) -> list[Step]:
    return [Wait.GATE, *count_up(request)]


def wait_between(request: Any) -> list[Step]:
    first, *others = count_up(request)
    return [first, Wait.GATE, *others]


def test_a_stream_that_waits_in_the_queue_has_its_status_line() -> None:
    with ScriptedServer(hang) as server:
        with connect(server.url) as connection:
            connection.sendall(request_bytes(body=STREAM))
            head = read_until(connection, b"\r\n\r\n")

        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"text/event-stream" in head
        eventually(lambda: not server.engine.open, "the client that left is noticed")


@pytest.mark.parametrize("script", [wait_first, wait_between])
def test_a_stream_that_has_nothing_to_send_sends_comments(script: Any) -> None:
    with ScriptedServer(script, **OFTEN) as server, connect(server.url) as connection:
        connection.sendall(request_bytes(body=STREAM, Connection="close"))
        waited = read_until(connection, b": keep-alive\n\n")
        server.call(server.engine.gate.set)
        answer = waited + read_until(connection, b"[DONE]\n\n")

        events = [line for line in answer.split(b"\n") if line.startswith(b"data: ")]
        texts = [json.loads(event[6:])["choices"][0]["text"] for event in events[:-1]]
        assert "".join(texts) == "t0 t1 t2 t3 t4 t5 t6 t7"


def test_openais_client_reads_past_the_comments() -> None:
    with ScriptedServer(wait_first, **OFTEN) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        stream = client.completions.create(model="tiny", prompt="t1", max_tokens=8, stream=True)
        server.call(server.engine.gate.set)

        assert "".join(chunk.choices[0].text for chunk in stream) == "t0 t1 t2 t3 t4 t5 t6 t7"


def test_a_failure_while_the_stream_waits_is_an_event() -> None:
    script = lambda request: [Wait.GATE, failed(request, FailureReason.OUT_OF_MEMORY)]  # noqa: E731
    with ScriptedServer(script) as server, connect(server.url) as connection:
        connection.sendall(request_bytes(body=STREAM, Connection="close"))
        read_until(connection, b"\r\n\r\n")
        server.call(server.engine.gate.set)
        event = read_until(connection, b"\n\n").split(b"data: ")[1].split(b"\n")[0]

        assert json.loads(event)["error"]["code"] == "out_of_memory"
        eventually(lambda: not server.engine.open, "the engine request is released")
        eventually(lambda: server.service.admission.open_choices == 0, "the place is free")


def test_a_bug_while_streaming_is_an_event_and_not_a_torn_connection() -> None:
    def script(request: Any) -> list[Step]:
        return [block(request, [1, 2, 3], forwards=3), finished(request)]

    with ScriptedServer(script) as server:

        def broken(*_: object) -> None:
            raise RuntimeError("broken on purpose")

        server.service.tokenizer.decode = broken  # type: ignore[method-assign,assignment]
        response = server.http.post("/v1/completions", json=STREAM | {"prompt": [1]})

        assert "internal_error" in response.text
        assert "broken on purpose" not in response.text
        eventually(lambda: not server.engine.open, "the engine request is released")


def test_a_client_that_hangs_up_at_done_has_had_its_answer() -> None:
    """Clients stop reading there (guidellm, openai's), often before the response has ended."""
    with ScriptedServer() as server:
        for _ in range(20):
            with connect(server.url) as connection:
                connection.sendall(request_bytes(body=STREAM))
                read_until(connection, b"data: [DONE]\n\n")
        eventually(lambda: server.service.admission.open_choices == 0, "all places are free")

        lines = server.http.get("/metrics").text.splitlines()
        assert 'dllm_requests_total{status="success"} 20.0' in lines
        assert "dllm_requests_cancelled_total 0.0" in lines
