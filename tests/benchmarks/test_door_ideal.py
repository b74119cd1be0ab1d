"""The queue that proxies are measured against."""

from __future__ import annotations

import pytest

from benchmarks.door.engine import EngineSize
from benchmarks.door.ideal import closed_loop, open_loop
from benchmarks.door.load import Answered, draw_works, figures

FAST, SLOW = EngineSize(1, 1, 1.0), EngineSize(2, 1, 4.0)


def test_one_client_is_served_by_the_fastest_one_after_the_other() -> None:
    assert closed_loop([1.0, 2.0], 1, [SLOW, FAST]) == [(0.0, 1.0), (1.0, 3.0)]


def test_who_comes_while_the_fast_one_is_busy_is_served_by_the_slow_one_and_the_next_waits() -> None:
    assert open_loop([1.0, 1.0, 1.0], [0.0, 0.5, 0.6], [FAST, SLOW]) == [(0.0, 1.0), (0.5, 4.5), (0.6, 2.0)]


@pytest.mark.parametrize("clients", [1, 2, 5, 20])
def test_no_queue_does_more_work_than_its_seats_can(clients: int) -> None:
    works = draw_works(50, 1.0, seed=clients)
    times = closed_loop(works, clients, [FAST, SLOW])

    end = max(answered for _, answered in times)
    assert sum(works) <= end * (1 + 1 / 4) + 1e-9


def test_requests_that_failed_are_counted_and_not_timed() -> None:
    found = figures([Answered(0.0, 1.0, 200), Answered(0.0, 9.0, 503), Answered(1.0, 2.0, 200)])

    assert (found.requests, found.failed) == (3, 1)
    assert found.per_second == pytest.approx(1.0)
    assert found.p95 == pytest.approx(1.0)
