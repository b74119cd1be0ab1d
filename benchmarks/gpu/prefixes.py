"""Block-causal models: many requests behind one system prompt, with the prefix cache and without, and a long
prompt that arrives among running requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.engine.requests.messages import Generate
from dllm_server.load.percentile import percentile

from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.models import SDAR_8B, TOY_SDAR
from benchmarks.gpu.session import Sample, Session, run_all

LINE = 12
SOONER = Target(LINE, 0.2, is_ceiling=True)
ONCE = Target(LINE, 1.1, is_ceiling=True)
STEADY = Target(LINE, 2.0, is_ceiling=True)
SHARES = (0.25, 0.1)  # of the token budget for prefills, beside the default


@dataclass(frozen=True, slots=True)
class Shape:
    """``requests`` of ``own_tokens`` each behind ``shared_tokens``; a prompt of ``long_tokens`` among
    ``running`` requests of ``running_tokens``. All generate ``max_tokens``, ``quota`` a step."""

    model: dict[str, Any]
    settings: dict[str, Any]
    requests: int
    shared_tokens: int
    own_tokens: int
    running: int
    running_tokens: int
    running_max_tokens: int
    long_tokens: int
    steady_steps: int
    max_tokens: int = 32
    quota: int = 2


FULL = Shape(
    SDAR_8B,
    {"max_model_len": 20480, "max_num_seqs": 96, "kv_pool_bytes": "28GiB"},
    requests=64,
    shared_tokens=2000,
    own_tokens=20,
    running=32,
    running_tokens=300,
    running_max_tokens=1024,
    long_tokens=16000,
    steady_steps=100,
)
TINY = Shape(
    TOY_SDAR,
    {"max_model_len": 256, "max_num_batched_tokens": 64},
    requests=3,
    shared_tokens=48,
    own_tokens=5,
    running=2,
    running_tokens=20,
    running_max_tokens=24,
    long_tokens=80,
    steady_steps=2,
    max_tokens=4,
)


def run(bench: Bench, result: PartResult) -> None:
    shape = TINY if bench.scale.is_tiny else FULL
    started = bench.start(model=shape.model, **shape.settings)
    run_all(started, behind_one_prompt(shape, "warm-up", seed=1, shares=True))
    measure_prefixes(bench, started, shape, result)
    default = started.engine.live
    for share in (default.refresh_share, *SHARES):
        bench.check_time("the prefixes")
        started.engine.retune(default.model_copy(update={"refresh_share": share}))
        target = STEADY if share == default.refresh_share else None
        measure_arrival(bench, started, shape, share, result, target)
    started.engine.retune(default)


def measure_prefixes(bench: Bench, started: StartedEngine, shape: Shape, result: PartResult) -> None:
    counts = started.engine.course.store.counts
    p50 = {}
    for shares in (False, True):
        hits = counts.hit_tokens
        asked = behind_one_prompt(shape, f"shares-{shares}", seed=2 + shares, shares=shares)
        session = run_all(started, asked)
        bench.synchronize()
        waits = [
            served.first_block - served.arrived for served in session.served.values() if served.first_block
        ]
        p50[shares] = percentile(waits, 0.5)
        computed = shape.requests * shape.shared_tokens - (counts.hit_tokens - hits)
        name = f"{shape.requests} behind {shape.shared_tokens} tokens, {'' if shares else 'no '}cache"
        note = "all submitted at once, the prompt not there yet"
        result.add(f"{name}: first block p50", p50[shares], "s", note=note)
        times = computed / shape.shared_tokens
        result.add(f"{name}: shared tokens computed", times, "times", _asked(bench, ONCE) if shares else None)
        result.data[f"first_block_seconds_{'shared' if shares else 'alone'}"] = sorted(waits)
        bench.say(f"{name}: first block p50 {p50[shares]:.3f} s, computed {times:.2f} times")
    ratio = p50[True] / p50[False]
    result.add("first block p50, cache over no cache", ratio, "times", _asked(bench, SOONER))


def measure_arrival(
    bench: Bench,
    started: StartedEngine,
    shape: Shape,
    share: float,
    result: PartResult,
    target: Target | None,
) -> None:
    """The median of the steps before the long prompt comes, the longest until its first block."""
    rng, session = random.Random(int(share * 100)), Session(started)
    for number in range(shape.running):
        prompt = _tokens(shape, rng, shape.running_tokens)
        session.submit(_request(shape, f"running-{share}-{number}", prompt, shape.running_max_tokens))
    while started.engine.requests_waiting or _last(session).long_tokens:
        session.step()
    # Made before: a step on its way would be read so much later.
    arriving = _request(shape, f"long-{share}", _tokens(shape, rng, shape.long_tokens), shape.max_tokens)
    session.samples.clear()
    while len(session.samples) < shape.steady_steps:
        session.step()
    median = percentile([sample.step_seconds for sample in session.samples], 0.5)
    session.samples.clear()
    session.submit(arriving)
    long = session.served[f"long-{share}"]
    while long.first_block is None and not long.failure:
        session.step()
    if long.failure:
        raise RuntimeError(long.failure)
    steps = [sample.step_seconds for sample in session.samples]
    session.abandon()
    name = f"{shape.long_tokens} tokens among {shape.running}, share {share:g}"
    result.add(f"{name}: median step before", median, "s")
    result.add(f"{name}: longest step", max(steps), "s")
    result.add(f"{name}: longest over median", max(steps) / median, "times", target and _asked(bench, target))
    result.add(f"{name}: its first block", (long.first_block or 0.0) - long.arrived, "s")
    result.data[f"step_seconds_share_{share:g}"] = steps
    bench.say(f"{name}: longest step {max(steps):.4f} s, median before {median:.4f} s")


def behind_one_prompt(shape: Shape, name: str, *, seed: int, shares: bool) -> list[Generate]:
    """With ``shares`` of one salt, else each of its own: nothing is found."""
    rng = random.Random(seed)
    shared = _tokens(shape, rng, shape.shared_tokens)
    return [
        _request(
            shape,
            f"{name}-{number}",
            shared + _tokens(shape, rng, shape.own_tokens),
            shape.max_tokens,
            salt=name if shares else f"{name}-{number}",
        )
        for number in range(shape.requests)
    ]


def _request(shape: Shape, name: str, prompt: Sequence[int], max_tokens: int, *, salt: str = "") -> Generate:
    job = random_job(1, max_tokens, shape.model["vocab_size"], random.Random(0))
    request = job.request(name, shape.quota, block=shape.model["block_size"])
    return msgspec.structs.replace(request, prompt=list(prompt), cache_salt=salt)


def _tokens(shape: Shape, rng: random.Random, count: int) -> list[int]:
    return random_job(count, 1, shape.model["vocab_size"], rng).prompt


def _last(session: Session) -> Sample:
    while not session.samples:
        session.step()
    return session.samples[-1]


def _asked(bench: Bench, target: Target) -> Target | None:
    """Nothing is asked of toy shapes."""
    return None if bench.scale.is_tiny else target
