"""Latencies of a session: percentiles over requests, with those that a cut left open counted as well."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from dllm_server.load.percentile import percentile

from benchmarks.gpu.session import Served

SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from arrival. A request still open at the cut counts with its wait so far, so that percentiles
    with ``open_requests`` above 0 are lower bounds. Gaps are those between a request's consecutive blocks, as
    a client of a stream sees them; steps are the engine's. NaN where there are none."""

    requests: int
    open_requests: int
    failed_requests: int
    p50: float
    p95: float
    p99: float
    mean: float
    first_block_p50: float
    first_block_p95: float
    first_block_p99: float
    first_block_max: float
    gap_p50: float
    gap_p99: float
    gap_max: float
    step_p50: float
    step_p99: float
    step_max: float
    values: list[float]

    def record(self) -> dict[str, Any]:
        return asdict(self)


def latencies(served: Iterable[Served], cut_seconds: float, step_seconds: Sequence[float] = ()) -> Latencies:
    """Of all requests that arrived by ``cut_seconds``, and of the steps that served them."""
    arrived = [request for request in served if request.arrived <= cut_seconds]
    whole = [_until(request.finished, request.arrived, cut_seconds) for request in arrived]
    first = [_until(request.first_block, request.arrived, cut_seconds) for request in arrived]
    p50, p95, p99 = (percentile(whole, share) for share in SHARES)
    gaps = [gap for request in arrived for gap in block_gaps(request, cut_seconds)]
    first_p50, first_p95, first_p99 = (percentile(first, share) for share in SHARES)
    return Latencies(
        requests=len(arrived),
        open_requests=sum(request.finished is None for request in arrived),
        failed_requests=sum(bool(request.failure) for request in arrived),
        p50=p50,
        p95=p95,
        p99=p99,
        mean=sum(whole) / len(whole) if whole else math.nan,
        first_block_p50=first_p50,
        first_block_p95=first_p95,
        first_block_p99=first_p99,
        first_block_max=max(first, default=math.nan),
        gap_p50=percentile(gaps, 0.5),
        gap_p99=percentile(gaps, 0.99),
        gap_max=max(gaps, default=math.nan),
        step_p50=percentile(step_seconds, 0.5),
        step_p99=percentile(step_seconds, 0.99),
        step_max=max(step_seconds, default=math.nan),
        values=sorted(whole),
    )


def block_gaps(request: Served, cut: float) -> list[float]:
    """Seconds between its consecutive blocks. A gap that the cut left open counts as far as it came."""
    is_open = request.finished is None and bool(request.blocks)
    return [
        later - earlier for earlier, later in pairwise([*request.blocks, cut] if is_open else request.blocks)
    ]


def _until(moment: float | None, arrived: float, cut: float) -> float:
    return (cut if moment is None else moment) - arrived
