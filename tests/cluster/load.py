"""Constant load on a Service from the client pod of its namespace, and what became of the requests."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster

SCRIPT = Path(__file__).with_name("load_script.py")
STREAM_SCRIPT = Path(__file__).with_name("stream_script.py")
LAST_ANSWERS_SECONDS = 120.0
LAST_STREAMS_SECONDS = 600.0


@dataclass(frozen=True)
class Request:
    """One request, repeated until it was answered."""

    is_kept: bool  # over a connection that is used again and again, not one of its own
    error: str | None  # of the first try: `503 shutting_down`, or the exception that broke the connection
    tries: int
    is_answered: bool


@dataclass
class Load:
    """The requests so far; grows while the load runs."""

    requests: list[Request] = field(default_factory=list)

    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.error]

    def unanswered(self) -> list[Request]:
        return [request for request in self.requests if not request.is_answered]

    def summary(self) -> str:
        """Numbers of requests by kind of connection and first error."""
        return str(
            dict(Counter(f"{'kept' if r.is_kept else 'fresh'} {r.error or 'ok'}" for r in self.requests))
        )

    def wait(self, cluster: Cluster, more: int, timeout_seconds: float = 300.0) -> None:
        """Until so many more requests have ended."""
        enough = len(self.requests) + more
        cluster.wait_for(f"{enough} requests", lambda: len(self.requests) >= enough, timeout_seconds)


@contextmanager
def constant_load(
    cluster: Cluster,
    namespace: str,
    host: str,
    *,
    fresh: int,
    kept: int = 0,
    port: int = 8000,
    words: int = 0,
) -> Iterator[Load]:
    """So many threads of each kind ask until the block ends; then the last answers are awaited. ``words``
    make the question longer, and its answer work."""
    pod = ["kubectl", "exec", "-i", "client", "-n", namespace, "--", "/opt/dllm/bin/python"]
    process = subprocess.Popen(
        [*pod, "-c", SCRIPT.read_text(), host, str(port), str(fresh), str(kept), str(words)],
        env=cluster.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    load = Load()
    reader = threading.Thread(target=_read, args=(process, load))
    reader.start()
    with process:
        try:
            yield load
            process.stdin.close()
            code = process.wait(LAST_ANSWERS_SECONDS)
            assert code == 0, f"the load ended with {code}: {process.stderr.read()}"
        finally:
            process.kill()
            reader.join()


def _read(process: subprocess.Popen[str], load: Load) -> None:
    for line in process.stdout:
        load.requests.append(Request(**json.loads(line)))


@dataclass
class Streams:
    """Long streams that were begun, and how those that are over ended."""

    begun: int = 0
    ended: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def long_streams(
    cluster: Cluster, namespace: str, host: str, count: int, *, port: int = 8000
) -> Iterator[Streams]:
    """So many at once from the client pod; after the block their ends are awaited."""
    pod = ["kubectl", "exec", "client", "-n", namespace, "--", "/opt/dllm/bin/python"]
    process = subprocess.Popen(
        [*pod, "-c", STREAM_SCRIPT.read_text(), host, str(port), str(count)],
        env=cluster.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    streams = Streams()

    def read() -> None:
        for line in process.stdout or ():
            said = json.loads(line)
            if said.pop("event") == "begun":
                streams.begun += 1
            else:
                streams.ended.append(said)

    reader = threading.Thread(target=read)
    reader.start()
    with process:
        try:
            yield streams
            process.wait(LAST_STREAMS_SECONDS)
        finally:
            process.kill()
            reader.join()
