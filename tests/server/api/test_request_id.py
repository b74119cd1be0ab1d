"""One id for a request: in the log, in the answer's header and in its body. And what the log says of
refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import pytest
import structlog
from raw_http import connect, read_to_end, request_bytes
from scripted_engine import count_up, hang
from scripted_server import ScriptedServer, eventually

PROMPT = {"prompt": [1, 2, 3], "max_tokens": 8}
CHAT = {"messages": [{"role": "user", "content": "t1 t2"}], "max_tokens": 8}
SECRET = "zanzibar"


@contextlib.contextmanager
def captured_log() -> Iterator[list[MutableMapping[str, Any]]]:
    """Log entries as they are written, with what is bound to their context."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


def line_of(entries: list[MutableMapping[str, Any]], request_id: str) -> MutableMapping[str, Any]:
    def lines() -> list[MutableMapping[str, Any]]:
        return [e for e in entries if e["event"] == "request" and e["request_id"] == request_id]

    eventually(lambda: bool(lines()), "the request's line is written")
    return lines()[0]


@pytest.mark.parametrize(
    ("path", "body", "prefix"),
    [("/v1/completions", PROMPT, "cmpl-"), ("/v1/chat/completions", CHAT, "chatcmpl-")],
)
@pytest.mark.parametrize("given", [None, "order-66/a:b", "x" * 128])
def test_one_id_goes_through_log_header_and_body(
    path: str, body: dict[str, Any], prefix: str, given: str | None
) -> None:
    with captured_log() as entries, ScriptedServer() as server:
        headers = {"X-Request-Id": given} if given else {}
        response = server.http.post(path, json=body, headers=headers)

        request_id = response.headers["x-request-id"]
        assert response.json()["id"] == prefix + request_id
        assert given is None or request_id == given
        assert line_of(entries, request_id)["status"] == 200


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "two words", "t\u00e9l\u00e9".encode().decode("latin-1"), "a\tb"]
)
def test_an_id_that_is_long_or_not_printable_is_replaced(given: str) -> None:
    with ScriptedServer() as server, connect(server.url) as connection:
        connection.sendall(request_bytes("/version", X_Request_Id=given, Connection="close"))
        answer = read_to_end(connection)

        (line,) = [line for line in answer.split(b"\r\n") if line.lower().startswith(b"x-request-id: ")]
        assert line.split(b": ")[1].isalnum()
        assert len(line.split(b": ")[1]) == 32


def test_two_open_requests_with_the_same_id_are_two_requests_of_the_engine() -> None:
    with ScriptedServer(hang) as server:
        headers = {"X-Request-Id": "same"}
        with connect(server.url) as first, connect(server.url) as second:
            for connection in (first, second):
                connection.sendall(request_bytes(body=PROMPT, **headers))
            eventually(lambda: len(server.engine.open) == 2, "both run")
        eventually(lambda: not server.engine.open, "both are released")
        server.engine.script = count_up

        assert server.http.post("/v1/completions", json=PROMPT, headers=headers).json()["id"] == "cmpl-same"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a value out of bounds": (
        {"prompt": SECRET, "temperature": 9},
        {"reason": "less_than_equal", "param": "temperature"},
    ),
    "an unknown name": ({"prompt": SECRET, "foo": SECRET}, {"reason": "unknown_parameter", "param": "foo"}),
    "a name that is text": ({"prompt": "t1", f"the {SECRET}": 1}, {"reason": "unknown_parameter"}),
    "a prompt of another shape": ({"prompt": {"a": SECRET}}, {"reason": "value_error", "param": "prompt"}),
    "a strategy that does not exist": (
        {"prompt": SECRET, "diffusion": {"unmasking": {"strategy": SECRET}}},
        {"reason": "enum", "param": "diffusion.unmasking.strategy"},
    ),
    "a model that is not served": (
        {"prompt": "t1", "model": SECRET},
        {"code": "model_not_found", "reason": "model_not_found", "param": "model"},
    ),
    "a prompt that is too long": (
        {"prompt": f"{SECRET} " * 600},
        {"code": "context_length_exceeded", "reason": "context_length_exceeded", "param": "prompt"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_log_says_why_a_request_was_refused_and_nothing_of_its_text(name: str) -> None:
    body, told = REFUSED[name]
    with captured_log() as entries, ScriptedServer() as server:
        response = server.http.post("/v1/completions", json=body)
        line = line_of(entries, response.headers["x-request-id"])

        assert response.status_code in (400, 404)
        assert {name: line[name] for name in ("code", "reason", "param") if name in line} == told
        assert SECRET not in str(entries)


def test_malformed_json_is_refused_without_its_text_in_the_log() -> None:
    with captured_log() as entries, ScriptedServer() as server:
        headers = {"Content-Type": "application/json"}
        response = server.http.post("/v1/completions", content=f'{{"prompt": {SECRET}', headers=headers)

        assert line_of(entries, response.headers["x-request-id"])["reason"] == "invalid_json"
        assert SECRET not in str(entries)


def refused_early(server: ScriptedServer, status: int) -> httpx.Response:
    match status:
        case 401:
            return server.http.get("/v1/models")
        case 404:
            return server.http.get("/nothing", headers={"Authorization": "Bearer k"})
        case 405:
            return server.http.get("/tokenize", headers={"Authorization": "Bearer k"})
        case _:
            headers = {"Authorization": "Bearer k"}
            return server.http.post("/v1/completions", content=b"x" * 1001, headers=headers)


@pytest.mark.parametrize("status", [401, 404, 405, 413])
def test_answers_of_every_layer_carry_the_id_and_leave_their_reason(status: int, tmp_path: Any) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k\n")
    settings: dict[str, Any] = {"api_keys_file": keys, "max_body_bytes": 1000}
    with captured_log() as entries, ScriptedServer(**settings) as server:
        response = refused_early(server, status)

        assert response.status_code == status
        line = line_of(entries, response.headers["x-request-id"])
        assert (line["status"], line["reason"]) == (status, response.json()["error"]["code"])


def test_a_bug_is_logged_with_its_trace_under_the_id_that_the_client_gets() -> None:
    with captured_log() as entries, ScriptedServer() as server:

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("broken on purpose")

        server.service.admission.check = broken  # type: ignore[method-assign]
        response = server.http.post("/v1/completions", json=PROMPT, headers={"X-Request-Id": "unlucky"})

        assert response.status_code == 500
        assert response.json()["error"]["message"] == "Internal error."
        assert response.headers["x-request-id"] == "unlucky"
        assert line_of(entries, "unlucky")["status"] == 500
        (trace,) = [entry for entry in entries if entry["event"] == "request failed"]
        assert (trace["request_id"], bool(trace["exc_info"])) == ("unlucky", True)


def test_a_bug_below_a_choice_is_logged_under_the_requests_id() -> None:
    def script(request: Any) -> Any:
        raise RuntimeError("broken on purpose")

    with captured_log() as entries, ScriptedServer(script) as server:
        response = server.http.post("/v1/completions", json=PROMPT, headers={"X-Request-Id": "unlucky"})

        assert response.status_code == 500
        (trace,) = [entry for entry in entries if entry["event"] == "choice failed"]
        assert trace["request_id"] == "unlucky"
