from __future__ import annotations

import re

import pytest
from dllm_operator.tuning.reading import ReadingError, parse_reading
from engine_metrics import HELD, MIB, make_snapshot, make_window, metrics_text
from hypothesis import given
from hypothesis import strategies as st


def test_what_the_server_says_is_read_back() -> None:
    reading = parse_reading(metrics_text(make_snapshot(make_window(3), make_window(4, steps=7), oom=2)))

    assert reading.device_bytes == 1000 * MIB
    assert reading.total_pages == 100
    assert reading.live["max_num_batched_tokens"] == 1024
    assert reading.floors == {"max_num_batched_tokens": 128}
    assert reading.ceilings == {"max_num_batched_tokens": 2048}
    assert reading.out_of_memory == 2
    assert reading.sums.steps == 100
    assert reading.sums.tokens_squared == 100 * 400**2
    assert [window.number for window in reading.windows] == [3, 4]
    window = reading.windows[1]
    assert (window.steps, window.peak_tokens, window.most_waiting, window.least_free_pages) == (7, 512, 4, 30)
    assert window.held_bytes == sum(HELD.values()) + 50 * MIB


def test_an_engine_without_a_finished_window_is_read() -> None:
    assert parse_reading(metrics_text(make_snapshot())).windows == ()


def test_a_window_in_which_the_generation_changed_says_so() -> None:
    (window,) = parse_reading(metrics_text(make_snapshot(make_window(0, generation=-1)))).windows

    assert window.generation == -1


@pytest.mark.parametrize(
    "name",
    [
        "dllm_device_memory_bytes",
        "dllm_kv_pages",
        "dllm_tuning_generation",
        "dllm_tuning_refused",
        "dllm_live_setting",
        "dllm_live_setting_floor",
        "dllm_live_setting_ceiling",
        "dllm_step_fit_steps_total",
        "dllm_oom_total",
        "dllm_window_steps",
        "dllm_window_generation",
    ],
)
def test_a_missing_series_is_named(name: str) -> None:
    text = metrics_text(make_snapshot(make_window(0)))
    without = re.sub(rf"^{name}[{{ ].*\n", "", text, flags=re.MULTILINE)
    assert without != text

    with pytest.raises(ReadingError, match=name):
        parse_reading(without)


@pytest.mark.parametrize("value", ["NaN", "-1.0", "+Inf"])
@pytest.mark.parametrize(
    "name",
    [
        "dllm_device_memory_bytes",
        "dllm_kv_pages",
        "dllm_step_fit_seconds_total",
        "dllm_memory_window_peak_bytes",
    ],
)
def test_an_impossible_value_is_named(name: str, value: str) -> None:
    text = metrics_text(make_snapshot(make_window(0)))
    lying = re.sub(rf"^({name}(?:{{.*}})?) .*$", rf"\1 {value}", text, flags=re.MULTILINE)
    assert lying != text

    with pytest.raises(ReadingError, match=name):
        parse_reading(lying)


def test_a_device_without_memory_is_no_reading() -> None:
    with pytest.raises(ReadingError, match="dllm_device_memory_bytes is 0"):
        parse_reading(metrics_text(make_snapshot(device_memory_bytes=0)))


@given(st.text(max_size=200))
def test_any_text_is_a_reading_or_an_error(text: str) -> None:
    with pytest.raises(ReadingError):
        parse_reading(text)
