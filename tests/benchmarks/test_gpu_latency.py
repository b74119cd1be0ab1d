"""Percentiles over requests, and what a cut does to them."""

from __future__ import annotations

import math

from benchmarks.gpu.latency import block_gaps, latencies
from benchmarks.gpu.recovery import recovery_seconds
from benchmarks.gpu.session import Sample, Served


def test_latency_runs_from_the_arrival() -> None:
    found = latencies([Served(arrived=2.0, first_block=3.0, finished=5.0)], cut_seconds=10.0)

    assert (found.p50, found.p99, found.first_block_p50, found.open_requests) == (3.0, 3.0, 1.0, 0)


def test_a_request_that_the_cut_left_open_counts_with_its_wait_so_far() -> None:
    served = [Served(0.0, 1.0, 2.0), Served(1.0, 4.0, None), Served(3.0, None, None)]

    found = latencies(served, cut_seconds=10.0)

    assert found.values == [2.0, 7.0, 9.0]
    assert found.open_requests == 2
    assert found.first_block_p99 == 7.0


def test_a_request_that_had_not_come_before_the_cut_does_not_count() -> None:
    found = latencies([Served(0.0, 1.0, 2.0), Served(11.0)], cut_seconds=10.0)

    assert found.requests == 1


def test_gaps_are_between_the_blocks_of_one_request() -> None:
    served = [Served(0.0, 1.0, 4.0, blocks=[1.0, 1.5, 4.0]), Served(0.0, 2.0, 2.0, blocks=[2.0])]

    found = latencies(served, cut_seconds=10.0)

    assert (found.gap_p50, found.gap_p99, found.gap_max) == (0.5, 2.5, 2.5)


def test_a_gap_that_the_cut_left_open_counts_as_far_as_it_came() -> None:
    assert block_gaps(Served(0.0, 1.0, None, blocks=[1.0, 2.0]), cut=9.0) == [1.0, 7.0]


def test_before_the_first_block_there_is_a_wait_and_no_gap() -> None:
    assert block_gaps(Served(0.0), cut=9.0) == []


def test_a_steps_percentiles_are_over_the_steps() -> None:
    found = latencies([], cut_seconds=1.0, step_seconds=[0.01] * 98 + [0.3, 0.5])

    assert (found.step_p50, found.step_p99, found.step_max) == (0.01, 0.3, 0.5)


def test_without_a_second_block_there_is_no_gap() -> None:
    assert math.isnan(latencies([Served(0.0, 1.0, 1.0, blocks=[1.0])], cut_seconds=2.0).gap_p99)


def sample(seconds: float, waiting: int) -> Sample:
    return Sample(seconds, 0, 32, 1, 1, waiting)


def test_recovery_ends_with_the_first_empty_queue_after_the_overload() -> None:
    samples = [sample(1, 0), sample(5, 9), sample(11, 4), sample(13, 0), sample(14, 2), sample(15, 0)]

    assert recovery_seconds(samples, overload_end=10.0) == 3.0


def test_a_queue_that_never_empties_has_not_recovered() -> None:
    assert recovery_seconds([sample(1, 0), sample(12, 3)], overload_end=10.0) is None
