"""Clients that are slow, silent, or send what no client should: bounded in time, size and number."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from raw_http import connect, read_to_end, read_until, request_bytes
from scripted_engine import Step, Wait, count_up, hang, one_block_then
from scripted_server import ScriptedServer, eventually
from test_request_id import captured_log

BODY = {"prompt": [1, 2], "max_tokens": 4}
SOON = 0.1  # seconds; a limit that the test waits for
WHOLE = request_bytes(body=BODY)
HEAD = WHOLE.split(b"\r\n\r\n")[0] + b"\r\n\r\n"


def error_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"x-request-id: " in head.lower()
    error: dict[str, Any] = json.loads(body)["error"]
    return error


def nothing_is_left(server: ScriptedServer) -> bool:
    """No connection and no task of a request, but for those of the test's own client."""
    state = server.server.http_state
    return not state.tasks and not [c for c in state.connections if not c.is_idle] and not server.engine.open


def all_closed(server: ScriptedServer) -> bool:
    return not server.server.http_state.connections and not server.server.http_state.tasks


SLOW: dict[str, tuple[bytes, int | None, str | None]] = {
    "silent": (b"", None, None),
    "an empty line": (b"\r\n", 408, "header_timeout"),
    "half a request line": (b"POST /v1/comp", 408, "header_timeout"),
    "half the headers": (HEAD[:-10], 408, "header_timeout"),
    "no body": (HEAD, 408, "body_timeout"),
    "half the body": (WHOLE[:-5], 408, "body_timeout"),
    "half a chunk": (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        408,
        "body_timeout",
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_client_that_does_not_send_its_request_in_time_is_given_up(name: str) -> None:
    sent, status, code = SLOW[name]
    limits = {"header_timeout_seconds": SOON, "body_timeout_seconds": SOON}
    with ScriptedServer(**limits) as server, connect(server.url) as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)

        if status is None:
            assert answer == b""
        else:
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert error_of(answer)["code"] == code
        eventually(lambda: all_closed(server), "socket and task are given back")


def test_a_body_that_never_ends_is_logged_with_its_reason_and_id() -> None:
    with captured_log() as entries, ScriptedServer(body_timeout_seconds=SOON) as server:
        with connect(server.url) as connection:
            connection.sendall(request_bytes(body=BODY, X_Request_Id="slow")[:-5])
            answer = read_to_end(connection)
        eventually(lambda: all_closed(server), "socket and task are given back")

        assert b"x-request-id: slow\r\n" in answer
        (line,) = [e for e in entries if e["event"] == "request" and e["request_id"] == "slow"]
        assert (line["outcome"], line["reason"]) == ("cancelled", "body_timeout")


def test_three_hundred_half_open_connections_are_all_given_up() -> None:
    limits = {"header_timeout_seconds": 0.5, "body_timeout_seconds": 0.5}
    with ScriptedServer(**limits) as server, ExitStack() as stack:
        for sent in [b"", HEAD[:-10], WHOLE[:-5]] * 100:
            stack.enter_context(connect(server.url)).sendall(sent)

        eventually(lambda: all_closed(server), "all are given up")
        assert server.http.get("/health").status_code == 200


TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "one header without end": lambda: b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 2_000_000,
    "a request line without end": lambda: b"GET /" + b"x" * 2_000_000,
    "many headers": lambda: b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(20_000)),
    "headers that end": lambda: b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_headers_above_their_limit_are_a_431(name: str) -> None:
    with ScriptedServer() as server:
        with connect(server.url) as connection:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # cut while it sends
                connection.sendall(TOO_LARGE[name]())
            answer = read_to_end(connection)
        if answer:
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert error_of(answer)["code"] == "headers_too_large"
        eventually(lambda: all_closed(server), "the connection is closed")


def test_large_headers_below_the_limit_pass() -> None:
    with ScriptedServer() as server:
        assert server.http.get("/health", headers={"X-Long": "x" * 30_000}).status_code == 200


def test_trailers_do_not_become_headers_and_end_somewhere() -> None:
    body = json.dumps(BODY).encode()
    chunked = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n"
    )
    with ScriptedServer() as server:
        with connect(server.url) as connection:
            connection.sendall(chunked % (len(body), body) + b"X-Late: 1\r\n\r\n")
            assert read_until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        with connect(server.url) as connection:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # cut while it sends
                connection.sendall(chunked % (len(body), body) + b"X-Late: " + b"x" * 4_000_000)
            read_to_end(connection)
        eventually(lambda: all_closed(server), "the connections are closed")


def test_a_new_connection_takes_the_place_of_the_oldest_idle_one() -> None:
    with ScriptedServer(max_connections=4) as server, ExitStack() as stack:
        idle = [stack.enter_context(connect(server.url)) for _ in range(4)]
        eventually(lambda: len(server.server.http_state.connections) == 4, "all are open")
        with connect(server.url) as probe:
            probe.sendall(request_bytes("/health"))
            assert read_until(probe, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")

        assert read_to_end(idle[0]) == b""
        idle[1].sendall(request_bytes("/health"))
        assert read_until(idle[1], b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_connections_above_the_limit_are_a_503_while_all_wait_for_answers() -> None:
    with ScriptedServer(hang, max_connections=2, slots=8) as server:
        with ExitStack() as stack:
            for number in range(2):
                stack.enter_context(connect(server.url)).sendall(WHOLE)
                eventually(lambda: len(server.engine.open) == number + 1, "it runs")  # noqa: B023
            with connect(server.url) as third:
                answer = read_to_end(third)

            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
            assert error_of(answer)["code"] == "too_many_connections"
            assert len(server.engine.open) == 2
        eventually(lambda: all_closed(server), "sockets and tasks are given back")
        assert server.http.get("/health").status_code == 200


def test_a_connection_is_kept_for_a_while_and_not_for_ever() -> None:
    with ScriptedServer(keep_alive_timeout_seconds=1) as server, connect(server.url) as connection:
        for _ in range(2):
            connection.sendall(request_bytes("/version"))
            assert read_until(connection, b"}").startswith(b"HTTP/1.1 200 OK\r\n")
        assert read_to_end(connection) == b""
        eventually(lambda: all_closed(server), "the socket is given back")


hang_after_a_block = one_block_then(lambda _: Wait.FOREVER)


def test_a_client_that_does_not_read_its_stream_is_cut_off() -> None:
    model = {"max_model_len": 10**8, "max_request_tokens": 10**8}
    long = {
        "prompt": [999] * 200_000,
        "echo": True,
        "n": 16,
        "stream": True,
        "max_tokens": 4,
    }  # 16 MB of text
    with ScriptedServer(hang_after_a_block, model=model, slots=16, write_timeout_seconds=0.3) as server:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server.listener_address)
            connection.sendall(request_bytes(body=long))
            eventually(lambda: len(server.engine.open) == 16, "it runs")
            eventually(lambda: all_closed(server), "it is cut off")

        eventually(lambda: not server.engine.open, "its request is released")
        assert server.service.admission.open_choices == 0


def test_requests_sent_at_once_are_answered_in_order() -> None:
    with ScriptedServer() as server, connect(server.url) as connection:
        last = request_bytes("/version", Connection="close")
        connection.sendall(WHOLE + request_bytes("/health") + last)
        answer = read_to_end(connection)

        parts = [answer.find(mark) for mark in (b"text_completion", b'"status"', b'"version"')]
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert -1 < parts[0] < parts[1] < parts[2]


def slow_answer(request: Any) -> list[Step]:
    first, *others = count_up(request)
    return [first, Wait.GATE, *others]


BEHIND = {
    "garbage": b"\x00\x01 garbage\r\n\r\n",
    "half a request": b"POST /v1/comp",
    "headers without end": b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_comes_behind_a_request_does_not_cut_its_answer(name: str) -> None:
    limits = {"header_timeout_seconds": SOON, "stream_keep_alive_seconds": SOON}
    with ScriptedServer(slow_answer, **limits) as server, connect(server.url) as connection:
        connection.sendall(request_bytes(body=BODY | {"stream": True, "max_tokens": 8}))
        answer = read_until(connection, b"data: ")
        connection.sendall(BEHIND[name])
        for _ in range(3):  # longer than the time for headers
            answer += read_until(connection, b": keep-alive\n\n")
        server.call(server.engine.gate.set)
        answer += read_until(connection, b"[DONE]\n\n")

        assert b"HTTP/1.1 4" not in answer.split(b"[DONE]")[0]
        read_to_end(connection)
        eventually(lambda: all_closed(server), "the connection is closed behind it")


def test_garbage_is_a_400_in_the_shape_of_all_errors() -> None:
    with ScriptedServer() as server, connect(server.url) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n")
        answer = read_to_end(connection)

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert error_of(answer)["code"] == "invalid_http"


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_declined_and_the_connection_goes_on(protocol: str) -> None:
    with ScriptedServer() as server, connect(server.url) as connection:
        upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2_Settings": "AAMAAABk"}
        for sent in (
            request_bytes(body=BODY, **upgrade),
            request_bytes("/version", **upgrade),
            request_bytes("/version"),
        ):
            connection.sendall(sent)
            answer = read_until(connection, b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += connection.recv(65536)


def test_connect_is_refused_and_closed() -> None:
    with ScriptedServer() as server, connect(server.url) as connection:
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01")
        answer = read_to_end(connection)

        assert answer.startswith(b"HTTP/1.1 40")
        eventually(lambda: all_closed(server), "the socket is given back")


def test_a_client_that_closes_its_half_is_gone() -> None:
    with ScriptedServer(hang) as server, connect(server.url) as connection:
        connection.sendall(WHOLE)
        eventually(lambda: bool(server.engine.open), "it runs")
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""

        eventually(lambda: nothing_is_left(server), "request, socket and task are given back")


def test_half_open_connections_do_not_hold_up_the_end() -> None:
    with ScriptedServer() as server, connect(server.url) as silent, connect(server.url) as slow:
        slow.sendall(WHOLE[:-5])
        eventually(lambda: len(server.server.http_state.connections) == 2, "both are open")
        server.stop()

        assert server.join() == 0
        assert read_to_end(silent) == b""
