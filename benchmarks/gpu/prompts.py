"""Prompts that are refreshed every eight blocks against every block, in one run: what a committed token
costs, and how many a second come of it."""

from __future__ import annotations

import random

from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.limits import best_rate
from benchmarks.gpu.offline import NOTE, measure_requests
from benchmarks.gpu.scale import PromptCase

LINE = 11
INTERVALS = (1, 8)
RETENTION_RATIO = 0.5


def run(bench: Bench, result: PartResult) -> None:
    """Each case at both intervals in turn, each after one request that pays for what a first one costs."""
    scale = bench.scale
    gemm_rate = result.data["gemm_tokens_per_second"] = best_rate(bench)
    started = bench.start(**scale.prompt_settings)
    cases = result.data.setdefault("cases", [])
    for case in scale.prompt_cases:
        rates = {}
        for interval in INTERVALS:
            bench.check_time(f"{len(cases)} runs")
            rng, name = random.Random(case.prompt_tokens), f"{label(case)}, prompt every {interval}"
            jobs = [
                random_job(case.prompt_tokens, scale.max_tokens, scale.model["vocab_size"], rng)
                for _ in range(case.requests)
            ]
            requests = [
                job.request(
                    f"{name} {number}",
                    case.quota,
                    block=scale.block,
                    retention_ratio=RETENTION_RATIO,
                    prompt_refresh_interval=interval,
                )
                for number, job in enumerate([jobs[0], *jobs])
            ]
            measure_requests(bench, started, requests[:1])
            measured = measure_requests(bench, started, requests[1:])
            rates[interval] = measured["tokens_per_second"]
            cases.append(
                {
                    "prompt_tokens": case.prompt_tokens,
                    "requests": case.requests,
                    "quota": case.quota,
                    "prompt_refresh_interval": interval,
                    "limit_tokens_per_second": gemm_rate / measured["forwarded_per_token"],
                }
                | measured
            )
            result.add(name, rates[interval], "tok/s", note=NOTE)
            result.add(f"{name}: forwarded a committed token", measured["forwarded_per_token"], "tokens")
            bench.say(f"{name}: {rates[interval]:.1f} tok/s")
        first, last = INTERVALS
        target = Target(LINE, case.least, case.goal) if case.least else None
        result.add(
            f"{label(case)}: every {last} over every {first}", rates[last] / rates[first], "times", target
        )


def label(case: PromptCase) -> str:
    return f"prompt {case.prompt_tokens:,}, {case.requests} requests, {case.quota} a step"
