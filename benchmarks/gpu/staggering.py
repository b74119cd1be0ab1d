"""Refresh staggering switched off, where every refresh that is due runs in the next step, and what that
changes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.latency import Latencies

_END_TO_END = "the same work in another order: what spreading costs or saves a whole request"
COMPARED = {
    "p50": _END_TO_END,
    "p99": _END_TO_END,
    "gap_p50": "the usual pause between a request's blocks",
    "gap_p99": "pauses behind long steps, which staggering is for",
    "gap_max": "a single pause",
    "step_p99": "steps of many refreshes",
}
"""Fields of ``Latencies``, and what the ratio of each shows."""


def ratios(at_once: Latencies, spread: Latencies) -> dict[str, float]:
    """Without staggering over with it: above 1 staggering helps. NaN where there was nothing to compare."""
    pairs = {name: (getattr(at_once, name), getattr(spread, name)) for name in COMPARED}
    return {
        name: without / with_it if with_it > 0 else math.nan for name, (without, with_it) in pairs.items()
    }


@contextmanager
def without_staggering(bench: Bench) -> Iterator[None]:
    """A refresh share of 1 and a budget for all requests' refreshes at once, then the settings as before."""
    engine = bench.engine().engine
    settings = engine.live
    budget = settings.max_num_seqs * min(engine.table.max_model_len, bench.scale.settings["max_model_len"])
    engine.retune(settings.model_copy(update={"refresh_share": 1.0, "max_num_batched_tokens": budget}))
    try:
        yield
    finally:
        engine.retune(settings)
