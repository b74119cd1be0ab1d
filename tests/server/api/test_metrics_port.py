"""Metrics on a port of their own: nothing else there, no key, the same limits, and they answer to the end."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from dllm_server.api.server import bind, run_server
from dllm_server.cause import Cause
from dllm_server.settings import ApiSettings, ServeSettings
from dllm_server.termination import Termination, TerminationReason
from pydantic import ValidationError
from raw_http import read_to_end, request_bytes
from real_server import RealServer
from scripted_engine import hang
from scripted_server import ScriptedServer, eventually

SOON = 0.1  # seconds; a limit that the test waits for
SERIES = "vllm:num_requests_waiting"


def write_key(directory: Path) -> Path:
    path = directory / "keys"
    path.write_text("right\n")
    return path


def test_a_port_of_their_own_has_nothing_else_and_asks_for_no_key(tmp_path: Path) -> None:
    with ScriptedServer(metrics_port=0, api_keys_file=write_key(tmp_path)) as server:
        metrics = httpx.get(server.metrics_url)
        base = server.metrics_url.removesuffix("/metrics")
        others = [
            httpx.get(f"{base}{path}").status_code
            for path in ("/", "/v1/models", "/ready", "/docs", "/version")
        ]
        written = httpx.post(server.metrics_url, json={}).status_code

        assert metrics.status_code == 200
        assert SERIES in metrics.text
        assert others == [404] * 5
        assert written == 405


def test_the_api_has_them_no_more_when_they_have_a_port(tmp_path: Path) -> None:
    key = {"Authorization": "Bearer right"}
    with ScriptedServer(metrics_port=0, api_keys_file=write_key(tmp_path)) as server:
        assert server.http.get("/metrics", headers=key).status_code == 404
        assert "/metrics" not in server.http.get("/openapi.json", headers=key).json()["paths"]


def test_without_a_port_they_are_behind_the_keys_of_the_api(tmp_path: Path) -> None:
    with ScriptedServer(api_keys_file=write_key(tmp_path)) as server:
        assert server.http.get("/metrics").status_code == 401
        assert SERIES in server.http.get("/metrics", headers={"Authorization": "Bearer right"}).text


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1",
    ],
    ids=["nothing", "OpenMetrics", "Prometheus 2", "Prometheus 3"],
)
def test_whatever_a_prometheus_asks_for_it_gets_the_names_that_autoscalers_ask_for(accept: str) -> None:
    with ScriptedServer(metrics_port=0) as server:
        answer = httpx.get(server.metrics_url, headers={"Accept": accept})

        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert f"\n{SERIES}{{" in answer.text


def connect_to(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=300)


def test_a_scraper_that_does_not_send_its_request_in_time_is_given_up() -> None:
    with (
        ScriptedServer(metrics_port=0, header_timeout_seconds=SOON) as server,
        connect_to(server.metrics_url) as half,
    ):
        half.sendall(b"GET /metr")

        assert b"header_timeout" in read_to_end(half)


def test_headers_without_end_are_refused() -> None:
    with (
        ScriptedServer(metrics_port=0, max_header_bytes=1024) as server,
        connect_to(server.metrics_url) as scraper,
    ):
        scraper.sendall(request_bytes("/metrics", X_Long="x" * 2000))

        assert read_to_end(scraper).startswith(b"HTTP/1.1 431 ")


def test_connections_are_bounded_and_take_none_from_the_api() -> None:
    with ScriptedServer(metrics_port=0, max_connections=1) as server:
        assert server.http.get("/health").status_code == 200
        kept = server.server.http_state.connections.copy()
        with connect_to(server.metrics_url) as oldest, connect_to(server.metrics_url):
            assert read_to_end(oldest) == b""

        assert kept == server.server.http_state.connections


def test_they_answer_while_the_server_drains_and_end_with_it() -> None:
    body = {"prompt": [1, 2], "max_tokens": 8, "stream": True}
    with (
        ScriptedServer(hang, metrics_port=0) as server,
        server.http.stream("POST", "/v1/completions", json=body),
    ):
        server.stop()
        eventually(lambda: server.http.get("/ready").status_code == 503, "not ready")
        draining = httpx.get(server.metrics_url)
        server.stop()
        server.join()

        assert draining.status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.metrics_url)


def test_the_port_of_the_api_is_refused() -> None:
    with pytest.raises(ValidationError, match="metrics_port 8000 is the API's port"):
        ApiSettings(metrics_port=8000)


def test_a_busy_port_is_a_failed_start_that_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "termination-log"
    file.touch()
    monkeypatch.setenv("DLLM_TERMINATION_LOG", str(file))
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]

        code = run_server(ServeSettings(host="127.0.0.1", port=0, metrics_port=port))

    end = Termination.parse(file.read_text())
    assert code == 1
    assert end is not None
    assert (end.reason, end.why.cause) == (TerminationReason.START_FAILED, Cause.ADDRESS)
    assert "stop what listens there, or choose another --metrics-port" in capfd.readouterr().err


def test_the_flag_opens_the_port_of_a_real_server() -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with RealServer("--metrics-port", str(port)) as server:
        assert SERIES in httpx.get(f"http://127.0.0.1:{port}/metrics").text
        assert server.http.get("/metrics").status_code == 404
