"""Offline throughput: N requests of one shape, all submitted at once, against the static baseline."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from dllm_server.engine.process.startup import StartedEngine
from dllm_server.engine.requests.messages import Generate

from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.bins import MOST_SAMPLES, binned
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.limits import best_rate
from benchmarks.gpu.scale import Case
from benchmarks.gpu.session import Sample, run_all
from benchmarks.gpu.static import static_rates

THROUGHPUT = {1: Target(2, 740, 830), 4: Target(2, 1500, 1650)}
SPEEDUP = Target(2, 2.7)
LEAST_REQUESTS = 64
NOTE = "all submitted at once, EOS ignored, first submission to last answer"


def run(bench: Bench, result: PartResult) -> None:
    """The baseline first, alone on the device."""
    scale = bench.scale
    gemm_rate = result.data["gemm_tokens_per_second"] = best_rate(bench)
    static, best_static = result.data.setdefault("static", {}), {}
    for quota in sorted({case.quota for case in scale.cases}):
        rates = static[quota] = static_rates(bench, quota)
        best_static[quota] = max(entry["rate"] for entry in rates.values())
        note = f"the first {scale.static_blocks} blocks of each canvas"
        result.add(f"static batch, best, {quota} a step", best_static[quota], "tok/s", note=note)
    run_all(bench.engine(), short_requests(bench, 1.0))
    cases = result.data.setdefault("cases", [])
    for number, case in enumerate(scale.cases):
        bench.check_time(f"{number} of {len(scale.cases)} cases")
        measured = measure(bench, case, f"offline-{number}-")
        limit = gemm_rate / forwarded_per_token(bench, case.quota)
        measured["limit_tokens_per_second"] = limit
        measured["limit_share"] = measured["tokens_per_second"] / limit
        measured["static_ratio"] = measured["tokens_per_second"] / best_static[case.quota]
        cases.append(measured)
        _report(case, measured, result)
        bench.say(f"{label(case)}: {measured['tokens_per_second']:.1f} tok/s")


def requests(bench: Bench, case: Case, name: str) -> list[Generate]:
    rng = random.Random(case.requests)
    return [
        random_request(bench, rng, f"{name}{index}", case.quota, case.retention_ratio)
        for index in range(case.requests)
    ]


def short_requests(bench: Bench, retention_ratio: float) -> list[Generate]:
    """As many requests as the engine runs at once, of one block in two steps: what a first run pays for is
    paid."""
    scale, rng = bench.scale, random.Random(1)
    return [
        random_job(scale.prompt_tokens, scale.block, scale.model["vocab_size"], rng).request(
            f"short-{index}",
            scale.block // 2,
            block=scale.block,
            retention_ratio=retention_ratio,
        )
        for index in range(scale.settings["max_num_seqs"])
    ]


def random_request(
    bench: Bench,
    rng: random.Random,
    name: str,
    quota: int,
    retention_ratio: float,
    max_tokens: int | None = None,
) -> Generate:
    """One request of the offline shape; another ``max_tokens`` leaves so much more or less prompt."""
    scale = bench.scale
    generated = scale.max_tokens if max_tokens is None else max_tokens
    prompt_tokens = scale.prompt_tokens + scale.max_tokens - generated
    job = random_job(prompt_tokens, generated, scale.model["vocab_size"], rng)
    return job.request(name, quota, block=scale.block, retention_ratio=retention_ratio)


def measure(bench: Bench, case: Case, name: str) -> dict[str, Any]:
    shape = {"requests": case.requests, "quota": case.quota, "retention_ratio": case.retention_ratio}
    return shape | measure_requests(bench, bench.engine(), requests(bench, case, name))


def measure_requests(bench: Bench, started: StartedEngine, asked: Sequence[Generate]) -> dict[str, Any]:
    """Tokens a second of the whole run, and of its middle half, where nothing ramps up or down."""
    stats = started.engine.stats
    forwarded, steps = sum(stats.tokens.values()), dict(stats.steps)
    session = run_all(started, asked)
    bench.synchronize()
    seconds = session.now
    tokens = sum(served.tokens for served in session.served.values())
    if tokens != (wanted := sum(request.max_tokens for request in asked)):
        raise RuntimeError(f"{len(asked)} requests: {tokens} tokens came, not {wanted}")
    count = len(session.samples)
    return {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "middle_tokens_per_second": middle_rate(session.samples),
        "forwarded_per_token": (sum(stats.tokens.values()) - forwarded) / tokens,
        "steps": {kind: stats.steps[kind] - before for kind, before in steps.items()},
        "milliseconds_per_step": seconds / count * 1e3,
        "composition": binned(session.samples, MOST_SAMPLES),
    }


def middle_rate(samples: list[Sample]) -> float:
    """Committed tokens a second between the first and the last quarter of the steps."""
    first, last = samples[len(samples) // 4], samples[3 * len(samples) // 4]
    inside = samples[len(samples) // 4 + 1 : 3 * len(samples) // 4 + 1]
    passed = last.seconds - first.seconds
    return sum(sample.committed_tokens for sample in inside) / passed if passed > 0 else 0.0


def forwarded_per_token(bench: Bench, quota: int) -> float:
    """Query tokens a committed token costs with one refresh a block: (N + (B / quota - 1) B) / B."""
    scale = bench.scale
    block, sequence = scale.block, scale.prompt_tokens + scale.max_tokens
    return (sequence + (-(-block // quota) - 1) * block) / block


def label(case: Case) -> str:
    return f"{case.requests} requests, {case.quota} a step, r = {case.retention_ratio:g}"


def _report(case: Case, measured: dict[str, Any], result: PartResult) -> None:
    is_judged = case.requests >= LEAST_REQUESTS
    throughput, speedup = (THROUGHPUT.get(case.quota), SPEEDUP) if is_judged else (None, None)
    name = label(case)
    result.add(name, measured["tokens_per_second"], "tok/s", throughput, NOTE)
    result.add(f"{name}: of the GEMM limit", measured["limit_share"], "share")
    result.add(f"{name}: over the best static batch", measured["static_ratio"], "times", speedup)
