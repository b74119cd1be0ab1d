"""CUDA graphs: launches recorded once, then replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def record(
    run: Callable[[], Result], device: torch.device, *, warm_up_runs: int, pool: tuple[int, int] | None = None
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """A graph of what ``run`` launches, and what it returned, which every replay writes again.

    ``run`` must not synchronise; first it runs ``warm_up_runs`` times, so that all is compiled and libraries
    have their workspaces. Graphs of one ``pool`` (see ``torch.cuda.graph_pool_handle``) share memory.
    """
    stream = _stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(warm_up_runs):
            run()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):  # type: ignore[arg-type]
        result = run()
    return graph, result


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The one stream of all recordings: cuBLAS keeps a workspace of 32 MiB for each stream it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
