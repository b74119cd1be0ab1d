"""What refreshes at once change, as ratios."""

from __future__ import annotations

import math

import pytest

from benchmarks.gpu.latency import Latencies, latencies
from benchmarks.gpu.session import Served
from benchmarks.gpu.staggering import COMPARED, ratios


def make_latencies(gap_seconds: float, step_seconds: float) -> Latencies:
    """Of one request of two blocks that ends 10 s after it came, in equal steps."""
    served = Served(0.0, 10.0 - gap_seconds, 10.0, blocks=[10.0 - gap_seconds, 10.0])
    return latencies([served], cut_seconds=20.0, step_seconds=[step_seconds] * 3)


def test_ratios_above_one_say_that_refreshes_at_once_are_slower() -> None:
    found = ratios(make_latencies(gap_seconds=3.0, step_seconds=0.2), make_latencies(2.0, 0.05))

    assert found == pytest.approx(
        {"p50": 1.0, "p99": 1.0, "gap_p50": 1.5, "gap_p99": 1.5, "gap_max": 1.5, "step_p99": 4.0}
    )


def test_nothing_to_compare_has_no_ratio() -> None:
    nothing = latencies([], cut_seconds=1.0)

    found = ratios(make_latencies(gap_seconds=1.0, step_seconds=0.1), nothing)

    assert found.keys() == COMPARED.keys()
    assert all(map(math.isnan, found.values()))
