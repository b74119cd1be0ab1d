"""How long a few launches take on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

from dllm_kernels.cuda_graph import record

FLUSH_BYTES = 256 * 1024**2  # several times the L2 cache
WARM_UP_RUNS = 3  # compile, fill caches, settle the clocks

Run = Callable[[], object]


def median_seconds(
    run: Run, device: torch.device, *, repeats: int = 20, flushes_cache: bool = False
) -> float:
    """``medians_in_turn`` of one."""
    return medians_in_turn([run], device, repeats=repeats, flushes_cache=flushes_cache)[0]


def medians_in_turn(
    runs: Sequence[Run], device: torch.device, *, repeats: int = 20, flushes_cache: bool = False
) -> list[float]:
    """Median time of each run on ``device``, taken in turn: under load a GPU's clock moves by a tenth within
    seconds, so that only what runs in the same moment compares.

    Each is captured once as a CUDA graph and replayed, so that launches cost the device's time alone. A run
    must not synchronise. On a CPU, one call each by the wall clock.
    """
    if device.type != "cuda":
        return [_wall_seconds(run) for run in runs]
    graphs = [record(run, device, warm_up_runs=WARM_UP_RUNS)[0] for run in runs]
    flush = torch.empty(FLUSH_BYTES if flushes_cache else 0, dtype=torch.int8, device=device)
    pairs: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[] for _ in runs]
    for graph in graphs:
        graph.replay()
    for _ in range(repeats):
        for graph, taken in zip(graphs, pairs, strict=True):
            flush.zero_()
            start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            start.record()
            graph.replay()
            end.record()
            taken.append((start, end))
    torch.cuda.synchronize(device)
    return [float(median(start.elapsed_time(end) for start, end in taken)) / 1e3 for taken in pairs]


def _wall_seconds(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
