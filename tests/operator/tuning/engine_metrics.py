"""The text that a real server answers at /metrics, from numbers: the contract between engine and operator."""

from __future__ import annotations

from typing import Any

import msgspec
from dllm_server.engine.requests.messages import EngineSnapshot, StepHistogram, StepSums, Window
from dllm_server.telemetry.engine_collector import EngineCollector
from prometheus_client import CollectorRegistry, generate_latest

MIB = 1024**2
HELD = {"weights": 600 * MIB, "kv_pool": 200 * MIB, "other": 50 * MIB}


def make_window(number: int, *, activations: int = 40 * MIB, **changes: Any) -> Window:
    values: dict[str, Any] = {
        "number": number,
        "start_seconds": 1000.0 + 10 * number,
        "end_seconds": 1010.0 + 10 * number,
        "generation": 0,
        "peak_bytes": HELD | {"activations": activations, "logits": 10 * MIB, "free": 100 * MIB},
        "peak_step_tokens": 512,
        "peak_step_logits_rows": 64,
        "steps": 20,
        "tokens": 8000,
        "step_requests": 160,
        "committed_tokens": 300,
        "oom": 0,
        "most_waiting": 4,
        "most_running": 8,
        "least_free_pages": 30,
        "least_step_tokens": 128,
        "tight_steps": 2,
        "mean_batch_fill": 0.5,
    }
    return Window(**(values | changes))


def make_snapshot(*windows: Window, steps: int = 100, oom: int = 0, **changes: Any) -> EngineSnapshot:
    phases = ("refresh", "reuse", "mixed")
    sums = StepSums()
    for _ in range(steps):
        sums = sums.plus(400, 0.02)
    snapshot = EngineSnapshot(
        requests_running=8,
        requests_waiting=4,
        tokens_total=dict.fromkeys(("refresh", "reuse"), 10),
        steps_total=dict.fromkeys(phases, steps),
        committed_tokens_total=500,
        step_seconds={phase: StepHistogram([float("inf")], [1], 0.1) for phase in phases},
        batch_fill=0.5,
        token_budget=1024,
        max_num_seqs=16,
        max_num_logits=256,
        max_model_len=512,
        kv_pages={"free": 40, "used": 60},
        prefix_pages=10,
        prefix_tokens_total={"queried": 200, "hit": 120, "saved": 150, "evicted": 40},
        preemptions_total=6,
        page_size=16,
        memory_bytes=HELD,
        memory_peak_bytes=HELD,
        memory_predicted_bytes=HELD,
        device_memory_bytes=1000 * MIB,
        oom_total={"mixed": oom, "profile": 0},
        cancelled_total=0,
        refused_total=0,
        not_finite_total=0,
        is_sound=True,
        tuning_generation=0,
        tuning_errors_total=0,
        is_tuning_refused=False,
        live={"max_num_batched_tokens": 1024, "refresh_share": 0.5},
        floors={"max_num_batched_tokens": 128},
        ceilings={"max_num_batched_tokens": 2048},
        step_sums={"mixed": sums},
        step_sums_left_out={"warm_up": 8},
        windows=list(windows),
    )
    return msgspec.structs.replace(snapshot, **changes)


def metrics_text(snapshot: EngineSnapshot) -> str:
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: snapshot, "a-model"))
    return generate_latest(registry).decode()
