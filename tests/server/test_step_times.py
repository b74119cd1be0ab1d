"""Sums of step time: exact for a reader of two readings, and free of steps that say nothing."""

from __future__ import annotations

import pytest
from dllm_server.engine.accounts.step_times import WARM_UP_STEPS, StepTimes
from dllm_server.engine.requests.messages import StepSums
from hypothesis import given
from hypothesis import strategies as st


def make_times() -> StepTimes:
    times = StepTimes(dict.fromkeys(("refresh", "reuse", "mixed"), StepSums()))
    for _ in range(WARM_UP_STEPS):
        times.add("refresh", 1, 100.0)
    return times


def fit(before: StepSums, after: StepSums) -> tuple[float, float]:
    n, tokens = after.steps - before.steps, after.tokens - before.tokens
    seconds = after.seconds - before.seconds
    products = after.token_seconds - before.token_seconds
    squares = after.squared_tokens - before.squared_tokens
    slope = (n * products - tokens * seconds) / (n * squares - tokens * tokens)
    return (seconds - slope * tokens) / n, 1 / slope


@given(st.floats(0.001, 0.1), st.floats(1e3, 1e5), st.sets(st.integers(1, 16384), min_size=2, max_size=30))
def test_two_readings_fit_floor_and_rate_exactly(floor: float, rate: float, sizes: set[int]) -> None:
    times = make_times()
    times.add("refresh", 100, 5.0)
    before = times.sums["refresh"]
    for tokens in [*sizes, 1, 16384]:
        times.add("refresh", tokens, floor + tokens / rate)

    assert fit(before, times.sums["refresh"]) == pytest.approx((floor, rate), rel=1e-3)


def test_the_first_steps_and_those_after_a_change_are_left_out() -> None:
    times = make_times()
    times.warm_up()
    for _ in range(WARM_UP_STEPS + 1):
        times.add("reuse", 32, 0.01)

    assert times.left_out == {"warm_up": 2 * WARM_UP_STEPS, "outlier": 0}
    assert times.sums["reuse"] == StepSums(1, 32, 0.01, 0.32, 1024)


def test_an_outlier_is_left_out_and_a_device_that_stays_slow_is_believed() -> None:
    times = make_times()
    for _ in range(31):
        times.add("mixed", 100, 0.01)
    times.add("mixed", 100, 1.0)
    assert (times.sums["mixed"].steps, times.left_out["outlier"]) == (31, 1)

    for _ in range(30):
        times.add("mixed", 100, 1.0)

    assert times.sums["mixed"].steps > 31
    assert times.left_out["outlier"] <= 16
