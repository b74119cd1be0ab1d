"""The script of `helm test`, against a server that plays the API server and the Service over real sockets."""

from __future__ import annotations

import http.client
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "charts" / "dllm-operator" / "files" / "ask.py"
PATH = "/apis/serving.dllm.dev/v1alpha1/namespaces/default/dllmdeployments"
SPEC = {"model": {"source": "embedded"}}
READY = {"type": "Ready", "status": "True", "reason": "AllReplicasReady"}
STARTING = {"type": "Ready", "status": "False", "reason": "Starting", "message": "0 of 1 pods are ready"}

_spec = importlib.util.spec_from_file_location("ask", SCRIPT)
assert _spec and _spec.loader
ask = importlib.util.module_from_spec(_spec)
sys.modules["ask"] = ask
_spec.loader.exec_module(ask)


class Cluster(ThreadingHTTPServer):
    """Remembers calls; gives the next of ``conditions`` at each GET, the last one for ever."""

    def __init__(self, conditions: list[dict[str, str]], answer: str, create_status: int = 201) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.conditions = conditions
        self.answer = answer
        self.create_status = create_status
        self.unavailable = 1
        self.calls: list[tuple[str, str]] = []

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.server_address[1], timeout=10)


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def reply(self, status: int, body: dict[str, Any]) -> None:
        self.server.calls.append((self.command, self.path))
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def do_GET(self) -> None:
        conditions = self.server.conditions
        now = conditions.pop(0) if len(conditions) > 1 else conditions[0]
        self.reply(200, {"status": {"conditions": [now]}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == PATH:
            self.reply(self.server.create_status, {"message": "no such kind"})
        elif self.server.unavailable:
            self.server.unavailable -= 1
            self.reply(503, {})
        else:
            self.reply(200, {"choices": [{"message": {"content": self.server.answer}}]})

    def do_DELETE(self) -> None:
        self.reply(200, {})

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


@pytest.fixture(autouse=True)
def poll_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "POLL_SECONDS", 0.01)


@pytest.fixture
def serving() -> Iterator[Any]:
    running: list[Cluster] = []

    def start(*arguments: Any, **keywords: Any) -> Cluster:
        cluster = Cluster(*arguments, **keywords)
        threading.Thread(target=cluster.serve_forever, daemon=True).start()
        running.append(cluster)
        return cluster

    yield start
    for cluster in running:
        cluster.shutdown()
        cluster.server_close()


def check(cluster: Cluster, token_file: Path, timeout_seconds: float = 30) -> None:
    resources = ask.Resources(cluster.connect, "default", token_file)
    ask.check(resources, "one", SPEC, cluster.connect, timeout_seconds)


def test_it_creates_waits_asks_and_deletes(
    serving: Any, token_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = serving([STARTING, STARTING, READY], "1823")

    check(cluster, token_file)

    assert cluster.calls == [
        ("POST", PATH),
        *[("GET", f"{PATH}/one")] * 3,
        *[("POST", "/v1/chat/completions")] * 2,
        ("DELETE", f"{PATH}/one"),
    ]
    told = capsys.readouterr().out
    assert "Ready: False Starting 0 of 1 pods are ready" in told
    assert "answer: 1823" in told


def test_a_wrong_answer_fails_it_and_deletes_the_resource(serving: Any, token_file: Path) -> None:
    cluster = serving([READY], "42")

    with pytest.raises(ask.CheckError, match=r"'42' does not contain 1823"):
        check(cluster, token_file)

    assert cluster.calls[-1] == ("DELETE", f"{PATH}/one")


def test_a_resource_that_does_not_become_ready_fails_it_with_the_reason(
    serving: Any, token_file: Path
) -> None:
    cluster = serving([STARTING], "1823")

    with pytest.raises(ask.CheckError, match="0 of 1 pods are ready"):
        check(cluster, token_file, timeout_seconds=0.1)

    assert cluster.calls[-1] == ("DELETE", f"{PATH}/one")


def test_a_resource_that_cannot_be_created_fails_it_with_the_api_servers_words(
    serving: Any, token_file: Path
) -> None:
    cluster = serving([READY], "1823", create_status=404)

    with pytest.raises(ask.CheckError, match="HTTP 404: no such kind"):
        check(cluster, token_file)

    assert cluster.calls == [("POST", PATH)]
