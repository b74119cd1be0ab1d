"""``dllm serve`` in a process of its own, as users run it; on the fixture's checkpoint unless told
otherwise."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import openai
import psutil

from tests.server.api.scripted_engine import FIXTURE

START_SECONDS = 300.0
STOP_SECONDS = 300.0


class RealServer:
    """``with RealServer("--max-num-seqs", "8") as server``: started, and killed at the end if need be."""

    def __init__(
        self,
        *flags: str,
        model: str = str(FIXTURE),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (sys.executable, "-m", "dllm_server.cli"),
    ) -> None:
        address = ["--host", "127.0.0.1", "--port", "0"]
        numbers = ["--device", "cpu", "--dtype", "float32"]
        self._process = subprocess.Popen(
            [*program, "serve", model, *address, *numbers, *flags],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environment or {}),
        )
        self.log: list[str] = []
        self._urls: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read_log, daemon=True).start()

    def __enter__(self) -> Self:
        url = self._urls.get(timeout=START_SECONDS)
        assert url is not None, "".join(self.log)
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=300)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        for process in [*self.children(), self._process]:
            process.kill()
        self._process.wait()

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=300)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill_engine(self) -> None:
        (engine,) = self.children()
        engine.kill()

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait(STOP_SECONDS)

    def metric(self, sample: str) -> float:
        lines = self.http.get("/metrics").text.splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(sample + " ")))

    def complete(self, **body: Any) -> dict[str, Any]:
        response = self.http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children() if self._process.poll() is None else []

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(line)
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if entry.get("event") == "listening":
                    self._urls.put(entry["url"])
        self._urls.put(None)
