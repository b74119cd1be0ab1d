"""Refresh staggering switched off: every refresh that is due runs in the next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.gpu.bench import Bench


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
