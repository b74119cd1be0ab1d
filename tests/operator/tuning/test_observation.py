from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.tuning.observation import observe_pool
from dllm_operator.tuning.reading import PodReading, parse_reading
from engine_metrics import HELD, MIB, make_snapshot, make_window, metrics_text


def make_reading(
    *numbers: int, changes: dict[int, dict[str, Any]] | None = None, **engine: Any
) -> PodReading:
    windows = (make_window(number, **(changes or {}).get(number, {})) for number in numbers)
    return parse_reading(metrics_text(make_snapshot(*windows, **engine)))


def test_only_windows_since_the_last_look_count() -> None:
    before = {"a": make_reading(0, 1)}
    now = {"a": make_reading(0, 1, 2, 3, changes={1: {"activations": 900 * MIB}}, steps=140)}

    window = observe_pool(before, now, {}, generation=0).window

    assert window.seconds == 20
    assert window.steps.steps == 40
    assert window.steps.mean_tokens == 400
    assert window.peak_activation_bytes == 40 * MIB
    assert window.committed_per_second == 30
    assert (window.waiting, window.running, window.used_pages, window.total_pages) == (4, 8, 70, 100)
    assert (window.tokens_per_request, window.tight) == (50.0, pytest.approx(0.1))
    assert window.is_applied


def test_bytes_are_the_worst_pods() -> None:
    now = {
        "a": make_reading(0),
        "b": make_reading(0, 1, changes={1: {"activations": 300 * MIB, "peak_step_tokens": 900}}),
    }

    window = observe_pool({}, now, {}, generation=0).window

    assert window.peak_activation_bytes == 300 * MIB
    assert window.peak_tokens == 900
    assert window.peak_share == pytest.approx((850 + 310) / 1000)
    assert window.pods == 2


def test_a_pod_that_began_anew_is_not_subtracted_from_its_former_self() -> None:
    before = {"a": make_reading(7, 8, steps=500, oom=5)}
    now = {
        "a": make_reading(0, changes={0: {"start_seconds": 2000.0, "end_seconds": 2010.0}}, steps=20, oom=1)
    }

    window = observe_pool(before, now, {}, generation=0).window

    assert window.steps.steps == 20
    assert window.out_of_memory == 1
    assert window.seconds == 10


def test_windows_of_another_generation_are_no_evidence() -> None:
    now = {
        "a": make_reading(0, 1, changes={0: {"generation": 3}, 1: {"generation": -1}}, tuning_generation=3)
    }

    observed = observe_pool({}, now, {}, generation=4).window

    assert not observed.is_applied
    assert not observed.has_traffic
    assert observed.peak_bytes == 0


def test_out_of_memory_kills_add_to_what_engines_contained() -> None:
    before, now = {"a": make_reading(0, oom=1)}, {"a": make_reading(0, 1, oom=3)}

    assert observe_pool(before, now, {}, generation=0, kills=2).window.out_of_memory == 4


def test_silent_and_refusing_pods_are_named() -> None:
    now = {"a": make_reading(0, is_tuning_refused=True)}

    observed = observe_pool({}, now, {"b": "no answer within 5 s"}, generation=0)

    assert observed.notes == ("b: no answer within 5 s", "a: refuses the tuning file")
    assert observed.window.pods_silent == 1


def test_one_pod_that_holds_more_than_the_others_is_named() -> None:
    def holding(other: int) -> PodReading:
        peaks = HELD | {"other": other, "activations": MIB, "logits": 0}
        return make_reading(0, changes={0: {"peak_bytes": peaks}})

    now = {"a": holding(50 * MIB), "b": holding(50 * MIB), "c": holding(150 * MIB)}

    assert observe_pool({}, now, {}, generation=0).notes == (
        "c: holds 100 MiB more than the pool's pods usually do",
    )


def test_a_pool_without_pods_has_nothing_to_say() -> None:
    observed = observe_pool({"a": make_reading(0)}, {}, {}, generation=0)

    assert observed.window.pods == 0
    assert not observed.window.has_traffic


def test_what_a_pod_counted_before_its_first_reading_is_nobodys_evidence() -> None:
    now = {"a": make_reading(0, 1, changes={0: {"oom": 2}}, steps=9000, oom=2)}

    window = observe_pool({}, now, {}, generation=0).window

    assert window.out_of_memory == 0
    assert not window.has_traffic
    assert window.peak_bytes > 0


def test_a_look_between_two_windows_is_not_conclusive_and_loses_nothing() -> None:
    first, second, third = (
        {"a": make_reading(*range(count), steps=steps)} for count, steps in ((1, 100), (1, 140), (2, 180))
    )

    between = observe_pool(first, second, {}, generation=0)
    later = observe_pool(first, third, {}, generation=0)

    assert not between.is_conclusive
    assert later.is_conclusive
    assert later.window.steps.steps == 80


def test_an_error_while_profiling_is_no_error_of_a_step() -> None:
    snapshot = make_snapshot(make_window(0), oom_total={"mixed": 1, "profile": 3})

    assert parse_reading(metrics_text(snapshot)).out_of_memory == 1


def timed(*, within: dict[str, int], steps: int = 100) -> PodReading:
    """A pod whose requests took at most so long: counts by bound, as a histogram gives them."""
    lines = [f'dllm_e2e_seconds_bucket{{le="{bound}"}} {count}' for bound, count in within.items()]
    text = metrics_text(make_snapshot(make_window(0), steps=steps))
    return parse_reading(f"{text}# TYPE dllm_e2e_seconds histogram\n" + "\n".join(lines) + "\n")


def test_latency_is_that_of_the_requests_since_the_last_look_over_all_pods() -> None:
    before = {"a": timed(within={"1": 50, "2": 100, "4": 100, "+Inf": 100}), "b": timed(within={"+Inf": 0})}
    now = {
        "a": timed(within={"1": 50, "2": 140, "4": 150, "+Inf": 150}),
        "b": timed(within={"1": 0, "2": 40, "4": 50, "+Inf": 50}),
    }

    window = observe_pool(before, now, {}, generation=0).window

    assert window.latency_p95_seconds == pytest.approx(2 + 2 * (95 - 80) / 20)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param({"1": 5, "+Inf": 5}, {"1": 5, "+Inf": 5}, None, id="no request"),
        pytest.param({"1": 0, "+Inf": 0}, {"1": 0, "+Inf": 9}, 1.0, id="beyond the last bound"),
    ],
)
def test_latency_where_buckets_say_little(
    before: dict[str, int], now: dict[str, int], expected: float | None
) -> None:
    seen = observe_pool({"a": timed(within=before)}, {"a": timed(within=now)}, {}, generation=0)

    assert seen.window.latency_p95_seconds == expected


def test_an_engine_that_began_anew_counts_its_latencies_anew() -> None:
    before = {"a": timed(within={"1": 900, "+Inf": 900}, steps=500)}
    now = {"a": timed(within={"1": 10, "+Inf": 10}, steps=20)}

    assert observe_pool(before, now, {}, generation=0).window.latency_p95_seconds == pytest.approx(0.95)
