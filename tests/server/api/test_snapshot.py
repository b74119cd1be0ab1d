"""/snapshot: the same figures as /metrics in one object, behind the same keys."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dllm_server.engine.requests.messages import StepSample, TuningChange
from dllm_server.telemetry.recent_times import percentile
from scripted_engine import make_snapshot
from scripted_server import ScriptedServer

COMPLETION = {"prompt": [1, 2, 3], "max_tokens": 8}


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float | None
) -> None:
    assert percentile(deque(values), share) == expected


def with_more(server: ScriptedServer) -> None:
    server.engine.snapshot = msgspec.structs.replace(
        make_snapshot(),
        requests_by_phase={"waiting": 2, "refresh": 1, "reuse": 0, "draining": 0},
        recent_steps=[StepSample(6, {"refresh": 40, "reuse": 8}, {"refresh": 1, "reuse": 1}, 4096, 3, 0.01)],
        tuning_changes=[TuningChange(7, 1000.0, {"max_num_seqs": (8, 4)})],
    )


def test_it_tells_what_the_engine_told() -> None:
    with ScriptedServer() as server:
        with_more(server)
        server.http.post("/v1/completions", json=COMPLETION)
        told = server.http.get("/snapshot").json()

    assert told["server"]["model"] == "tiny"
    assert told["requests"]["by_phase"] == {"waiting": 2, "refresh": 1, "reuse": 0, "draining": 0}
    assert told["memory"]["budget_bytes"] == 1000
    assert told["memory"]["by_owner"] == {"weights": 100, "free": 900}
    assert told["pages"] == {"used": 25, "free": 75, "prefix": 10, "page_size": 16}
    assert told["prefix_cache"] is None  # of a bidirectional model
    assert told["steps"]["recent"][0]["tokens"] == {"refresh": 40, "reuse": 8}
    assert told["tuning"]["changes"][0]["settings"] == {"max_num_seqs": [8, 4]}
    assert told["tuning"]["settings"]["max_num_batched_tokens"] == {
        "value": 4096,
        "floor": 99,
        "ceiling": 8192,
    }
    assert told["latency"]["answers"] == 1
    assert told["latency"]["queue_seconds"]["p50"] == 0.001
    assert told["latency"]["end_to_end_seconds"]["p99"] >= told["latency"]["first_block_seconds"]["p99"] > 0


def test_before_the_engine_has_told_anything_it_is_a_503_to_try_again() -> None:
    with ScriptedServer() as server:
        server.engine.snapshot = None
        answer = server.http.get("/snapshot")

        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_snapshot")
        assert answer.headers["Retry-After"] == "1"


def test_it_asks_for_a_key_as_the_api_does(tmp_path: Path) -> None:
    keys: Any = tmp_path / "keys"
    keys.write_text("k\n")
    with ScriptedServer(api_keys_file=keys) as server:
        assert server.http.get("/snapshot").status_code == 401
        assert server.http.get("/snapshot", headers={"Authorization": "Bearer k"}).status_code == 200
