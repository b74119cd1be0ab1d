"""``dllm bench`` between the embedded model and a deliberately slow endpoint of another make."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from dllm_server.cli.commands import cli
from dllm_server.load.percentile import percentile

from tests.server.api.real_server import RealServer
from tests.server.load.slow_endpoint import Pace, SlowEndpoint

LOAD = ["--clients", "2", "--requests", "8", "--rounds", "2", "--prompt-tokens", "48", "--max-tokens", "32"]
SLOWLY = {"diffusion": {"unmasking": {"strategy": "quota", "value": 2}}}
CLOSE = 0.03


class Wire:
    """Round trips to a server while it is loaded: what lies between its clock and a client's."""

    def __init__(self, url: str) -> None:
        self._url, self._stop = url, threading.Event()
        self._seconds: list[float] = []
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url) as client:
            while not self._stop.wait(0.1):
                began = time.perf_counter()
                client.get("/health")
                self._seconds.append(time.perf_counter() - began)

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def most_seconds(self) -> float:
        return percentile(self._seconds, 0.95)


def test_ratios_and_figures_are_those_that_both_servers_count(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with (
        RealServer(model="embedded") as ours,
        SlowEndpoint(Pace(0.5, 0.1, 6)) as slow,
        Wire(ours.url) as wire,
    ):
        options = [*LOAD, "--ignore-eos", "--body", json.dumps(SLOWLY), "--json", str(path)]
        result = CliRunner().invoke(cli, ["bench", ours.url, "--against", slow.url, *options])

    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    first, second = found["endpoints"]
    for endpoint, way in ((first, wire.most_seconds), (second, 0.0)):
        pairs = {pair["name"]: pair for pair in endpoint["server"]}
        for name in ("requests answered", "prompt tokens", "generated tokens"):
            assert pairs[name]["clients"] == pairs[name]["server"], name
        for name in ("first block", "end to end"):
            assert pairs[name]["clients"] >= pairs[name]["server"], name
            assert pairs[name]["clients"] <= (1 + CLOSE) * pairs[name]["server"] + 2 * way, name
    assert first["summary"]["completion_tokens"] == 8 * 32
    assert first["summary"]["queue"]["count"] == 8
    assert second["summary"]["end"]["p50"] == pytest.approx(1.0, rel=0.1)
    ratio = {ratio["name"]: ratio["ratio"] for ratio in found["ratios"]}["end to end mean"]
    assert ratio == pytest.approx(mean_of(second) / mean_of(first), rel=0.1)


def mean_of(endpoint: dict[str, Any]) -> float:
    """Seconds to the end, as the server has it."""
    (pair,) = (pair for pair in endpoint["server"] if pair["name"] == "end to end")
    mean: float = pair["server"]
    return mean
