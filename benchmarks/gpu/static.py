"""The static-batch baseline: its rate on the offline case, and as a server that collects waiting requests."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Any

import torch
from dllm_server.load.arrivals import Arrival
from dllm_server.models.transformer import Transformer

from benchmarks.baselines import decode_static_batch
from benchmarks.gpu.arrivals import random_job
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.session import Served
from benchmarks.job import Job

IDLE_SECONDS = 0.002
ROOM_BYTES = 55e9  # of 80 GB, beside the weights
SMALLEST_BATCH = 4


def static_rates(bench: Bench, quota: int) -> dict[int, dict[str, Any]]:
    """Tokens a second by batch size, on canvases of the offline case. Only the first ``static_blocks`` blocks
    are decoded and only their tokens counted: each block costs the same. ``rate`` 0: it did not fit."""
    scale, model = bench.scale, bench.model()
    rng = random.Random(17)
    rates: dict[int, dict[str, Any]] = {}
    for batch in scale.static_batches:
        jobs = [
            random_job(scale.prompt_tokens, scale.max_tokens, scale.model["vocab_size"], rng)
            for _ in range(batch)
        ]
        try:
            seconds = _timed(bench, model, jobs, quota)
        except torch.OutOfMemoryError:
            seconds = math.inf
        if bench.is_cuda:
            peak = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()
        else:
            peak = 0
        tokens = batch * min(scale.static_blocks * scale.block, scale.max_tokens)
        rates[batch] = {"rate": tokens / seconds, "seconds": seconds, "tokens": tokens, "peak_bytes": peak}
        bench.say(f"static batch of {batch}, {quota} a step: {tokens / seconds:.1f} tok/s")
    return rates


def _timed(bench: Bench, model: Transformer, jobs: Sequence[Any], quota: int) -> float:
    scale = bench.scale
    block = scale.block
    decode_static_batch(model, jobs, block // 2, block=block, blocks=1)  # allocations, the libraries' choices
    bench.synchronize()
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    decode_static_batch(model, jobs, quota, block=block, blocks=scale.static_blocks)
    bench.synchronize()
    return time.perf_counter() - started


def serve_static(
    bench: Bench, arrivals: Sequence[Arrival[Job]], quota: int, batch: int, until: float
) -> tuple[list[Served], float]:
    """A static batcher: takes what waits, up to ``batch``, decodes it to the end, takes again. Returns the
    requests and the seconds it took: until all are done, or the batch that was running at ``until``."""
    model = bench.model()
    served = [Served(arrival.seconds) for arrival in arrivals]
    began = time.monotonic()
    next_one = 0
    while next_one < len(arrivals) and (now := time.monotonic() - began) < until:
        ready = [
            index
            for index in range(next_one, min(next_one + batch, len(arrivals)))
            if arrivals[index].seconds <= now
        ]
        if not ready:
            time.sleep(min(IDLE_SECONDS, max(arrivals[next_one].seconds - now, 0.0)))
            continue
        decode_static_batch(model, [arrivals[i].job for i in ready], quota, block=bench.scale.block)
        bench.synchronize()
        finished = time.monotonic() - began
        for index in ready:
            served[index].first_block = served[index].finished = finished
            served[index].tokens = arrivals[index].job.max_tokens
        next_one = ready[-1] + 1
    return served, time.monotonic() - began


def largest_batch(bench: Bench, arrivals: Sequence[Arrival[Job]]) -> int:
    """The largest batch size of the scale whose float64 softmax and K/V fit beside the weights at the longest
    request that will come."""
    scale = bench.scale
    longest = max((len(arrival.job.prompt) + arrival.job.max_tokens for arrival in arrivals), default=1)
    logits_bytes = scale.model["vocab_size"] * (2 + 8 + 8)  # as computed, in float64, their softmax
    kv_bytes = 2 * 2 * scale.model["n_layers"] * scale.model["d_model"]
    room_bytes = ROOM_BYTES if bench.is_cuda else math.inf
    sizes = (*scale.static_batches, SMALLEST_BATCH)
    fitting = [size for size in sizes if size * longest * (logits_bytes + kv_bytes) <= room_bytes]
    return max(fitting, default=1)
