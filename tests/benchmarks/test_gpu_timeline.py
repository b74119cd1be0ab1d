"""The share of time in which no kernel runs, from a profiler's intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.bins import binned
from benchmarks.gpu.timeline import COPIES, KERNEL, busy_time, device_intervals, time_by_name


@pytest.mark.parametrize(
    ("intervals", "idle"),
    [
        ([(0, 10)], 0.0),
        ([(0, 4), (6, 10)], 0.2),
        ([(6, 10), (0, 4)], 0.2),
        ([(0, 8), (2, 4), (6, 10)], 0.0),
        ([(0, 5), (5, 10)], 0.0),
        ([(0, 1), (9, 10), (0, 2)], 0.7),
        ([], 0.0),
    ],
)
def test_idle_is_what_the_union_of_kernels_leaves(intervals: list[tuple[float, float]], idle: float) -> None:
    assert busy_time(intervals).idle_share == pytest.approx(idle)


def test_the_longest_gaps_come_first() -> None:
    assert busy_time([(0, 1), (2, 3), (8, 9), (12, 13)]).longest_gaps == [5, 3, 1]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), min_size=1))
def test_busy_time_counts_each_moment_once(spans: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in spans]

    moments = {moment for start, end in intervals for moment in range(start, end)}

    found = busy_time([(float(start), float(end)) for start, end in intervals])
    assert found.busy == len(moments)
    assert found.span - found.busy == pytest.approx(found.idle_share * found.span)


TRACE = {
    "traceEvents": [
        {"cat": "kernel", "name": "gemm", "ts": 0, "dur": 4},
        {"cat": "gpu_memcpy", "name": "copy", "ts": 4, "dur": 1},
        {"cat": "kernel", "name": "norm", "ts": 6, "dur": 1},
        {"cat": "kernel", "name": "gemm", "ts": 7, "dur": 3},
        {"cat": "gpu_user_annotation", "name": "step", "ts": 0, "dur": 10},
        {"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 10},
        {"ph": "M", "name": "process_name"},
    ]
}


def test_annotations_and_host_work_are_not_kernels() -> None:
    assert device_intervals(TRACE) == [(0, 4), (6, 7), (7, 10)]
    assert busy_time(device_intervals(TRACE)).idle_share == pytest.approx(0.2)
    assert busy_time(device_intervals(TRACE, (KERNEL, *COPIES))).idle_share == pytest.approx(0.1)


def test_kernels_are_summed_by_name() -> None:
    assert time_by_name(TRACE) == [("gemm", 7.0, 2), ("norm", 1.0, 1)]


def test_a_long_series_becomes_means_of_neighbours() -> None:
    assert binned([(0, 10), (1, 20), (2, 30), (3, 50), (4, 70)], most=3) == [[0.5, 15], [2.5, 40], [4, 70]]


def test_a_short_series_is_kept_as_it_is() -> None:
    assert binned([(0, 10), (1, 20)], most=3) == [[0, 10], [1, 20]]
    assert binned([], most=3) == []
