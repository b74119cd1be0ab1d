"""How long a few launches take on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

FLUSH_BYTES = 256 * 1024**2  # several times the L2 cache


def median_seconds(
    run: Callable[[], object], device: torch.device, *, repeats: int = 20, flushes_cache: bool = False
) -> float:
    """Median time of ``run`` on ``device``: captured once as a CUDA graph and replayed, so that launches cost
    the device's time alone. ``run`` must not synchronise. On a CPU, one call by the wall clock."""
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
    graph = _captured(run)
    flush = torch.empty(FLUSH_BYTES if flushes_cache else 0, dtype=torch.int8, device=device)
    pairs = []
    for _ in range(repeats):
        flush.zero_()
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record()
        graph.replay()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize(device)
    return float(median(start.elapsed_time(end) for start, end in pairs)) / 1e3


def _captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # compile, fill caches, settle the clocks
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    return graph
