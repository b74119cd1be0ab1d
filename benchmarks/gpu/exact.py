"""Block-causal models: one request alone and many at once, beside what the reads and the arithmetic of their
steps take at this run's rates."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from dllm_server.engine.requests.messages import Generate
from dllm_server.models.config import ModelConfig
from dllm_server.models.registry import find_family

from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.experts import Limits, measure_limits
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.idle import measure_idle
from benchmarks.gpu.models import LLADA2_MINI, SDAR_8B, TOY_LLADA2, TOY_SDAR
from benchmarks.gpu.offline import NOTE, measure_requests
from benchmarks.gpu.session import Session

LINE = 13
IDLE = Target(LINE, 0.10, is_ceiling=True)
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A model, how many tokens a step commits of each request, and what is asked of one and of many."""

    name: str
    model: dict[str, Any]
    quota: int
    requests: int
    alone: Target | None = None
    together: Target | None = None


FULL = (
    Case("SDAR-8B", SDAR_8B, 2, 128, Target(LINE, 280, 330), Target(LINE, 9000, 12000)),
    Case("LLaDA2-mini", LLADA2_MINI, 4, 64, Target(LINE, 440, 520), Target(LINE, 8000, 11000)),
)
TINY = (
    Case("toy SDAR", TOY_SDAR, 2, 4),
    Case("toy LLaDA2", TOY_LLADA2, 4, 3),
)
_SETTINGS: dict[str, Any] = {
    "max_num_seqs": 128,
    "max_model_len": 4096,
    "max_num_batched_tokens": 8192,
    "kv_pool_bytes": "16GiB",
}


def run(bench: Bench, result: PartResult) -> None:
    bench.release()
    limits = measure_limits(bench.device)
    result.add("copy bandwidth, read and written", limits.bytes_per_second / 1e9, "GB/s")
    result.add("matrix product", limits.operations_per_second / 1e12, "TFLOP/s")
    for case in TINY if bench.scale.is_tiny else FULL:
        bench.check_time(f"what comes before {case.name}")
        measure(bench, case, limits, result)


def measure(bench: Bench, case: Case, limits: Limits, result: PartResult) -> None:
    """The median of three alone, then all at once, each after a run that pays for what a first one costs;
    then how long the device waits while all are denoised."""
    scale = bench.scale
    engine = bench.start(case.model, **({} if scale.is_tiny else _SETTINGS))
    config, rng = find_family(case.model)[1], random.Random(case.requests)

    def asked(name: str, count: int, max_tokens: int = scale.max_tokens) -> list[Generate]:
        jobs = [random_job(scale.prompt_tokens, max_tokens, config.vocab_size, rng) for _ in range(count)]
        return [
            job.request(f"{name}-{number}", case.quota, block=config.grid) for number, job in enumerate(jobs)
        ]

    for count, target, repeats in ((1, case.alone, REPEATS), (case.requests, case.together, 1)):
        measure_requests(bench, engine, asked(f"warm-up-{count}", count))
        runs = [measure_requests(bench, engine, asked(f"run-{count}-{n}", count)) for n in range(repeats)]
        measured = sorted(runs, key=lambda one: one["tokens_per_second"])[repeats // 2]
        rows = count * (config.grid + case.quota)  # a block, and its share of the pass of the one before
        step = step_floor(config, rows, rows / 2, limits)
        prompts = step_floor(config, count * scale.prompt_tokens, 0, limits)
        floor = prompts + scale.max_tokens / case.quota * step
        rate = measured["tokens_per_second"]
        name = f"{case.name}, {count} requests, {case.quota} a step"
        result.add(name, rate, "tok/s", target, NOTE)
        note = f"{prompts * 1e3:.1f} ms for the prompts, {step * 1e3:.2f} ms a step of {rows} rows"
        result.add(f"{name}: share of the floor", floor / measured["seconds"], "share", note=note)
        result.data.setdefault("cases", []).append(
            {"model": case.name, "requests": count, "quota": case.quota, "floor_seconds": floor} | measured
        )
        bench.say(f"{name}: {rate:,.0f} tok/s, {measured['milliseconds_per_step']:.2f} ms a step")
    session = Session(engine)
    for request in asked("idle", case.requests, 2 * scale.max_tokens):
        session.submit(request)
    while not session.samples or engine.engine.requests_waiting or session.samples[-1].long_tokens:
        session.step()
    name = f"{case.name}, {case.requests} requests"
    measure_idle(bench, session.step, name, result, None if scale.is_tiny else IDLE)
    session.abandon()


def step_floor(config: ModelConfig, rows: float, head_rows: float, limits: Limits) -> float:
    """Seconds that the products of a step of ``rows`` take at the least, ``head_rows`` of which reach the
    vocabulary: each part the longer of its weights' read and its arithmetic. Attention, norms and the choice
    of tokens are left out."""
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    width, layers = config.d_model, config.n_layers
    parts: list[tuple[float, float]] = [  # weights read, products of a weight and an input
        (layers * width * (2 * query + 2 * key), layers * width * (2 * query + 2 * key) * rows),
        (config.vocab_size * width, config.vocab_size * width * head_rows),
    ]
    dense = len(config.dense_layers) * 3 * width * config.mlp_width
    parts.append((dense, dense * rows))
    if config.experts is not None:
        rule, one = config.experts.rule, 3 * width * config.experts.width * len(config.experts.layers)
        untouched = (1 - rule.chosen / config.experts.count) ** rows
        touched = config.experts.count * (1 - untouched) + rule.shared
        parts.append((touched * one, (rule.chosen + rule.shared) * one * rows))
    return sum(
        max(2 * weights / limits.bytes_per_second, 2 * products / limits.operations_per_second)
        for weights, products in parts
    )
