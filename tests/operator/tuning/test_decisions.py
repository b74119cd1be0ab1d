"""Looks that say little: what the controller makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dllm_operator.tuning.controller import decide
from dllm_operator.tuning.decision import Action, Reason
from dllm_operator.tuning.objective import Objective
from dllm_operator.tuning.setting import Bounds, Range, Setting
from dllm_operator.tuning.speed import StepSums, fit_speed
from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow

GIB = 1024**3
START = Setting(4096, 64, 2048, 0.5, 4 * GIB)
OBJECTIVE = Objective(
    0.9, Bounds(Range(512, 32768), Range(1, 256), Range(64, 8192), Range(0.1, 1)), 1 << 20, 1e5
)


def make_window(**changes: Any) -> PoolWindow:
    values: dict[str, Any] = {
        "seconds": 60.0,
        "pods": 1,
        "pods_silent": 0,
        "is_applied": True,
        "device_bytes": 24 * GIB,
        "weights_bytes": 12 * GIB,
        "kv_pool_bytes": 4 * GIB,
        "other_bytes": GIB,
        "peak_bytes": 19 * GIB,
        "peak_activation_bytes": 2 * GIB,
        "peak_tokens": 4000,
        "peak_logits_bytes": GIB // 8,
        "peak_rows": 256,
        "least_step_tokens": 512,
        "out_of_memory": 0,
        "steps": StepSums(100, 2e5, 5.0, 1e4, 4.2e8),
        "committed_per_second": 100.0,
        "tokens_per_request": 200.0,
        "tight": 0.1,
        "waiting": 0.0,
        "running": 10.0,
        "used_pages": 100.0,
        "total_pages": 4000,
    }
    return PoolWindow(**(values | changes))


EMPTY = {"seconds": 0.0, "other_bytes": 0, "peak_bytes": 0, "peak_activation_bytes": 0, "steps": StepSums()}


def test_a_look_without_windows_teaches_nothing_so_that_no_leak_is_seen_later() -> None:
    state = TuningState(START, START)
    state, decision = decide(state, make_window(**EMPTY), OBJECTIVE)
    assert decision.reason is Reason.NO_READINGS
    assert state.base_other_bytes is None
    for _ in range(4):
        state, _ = decide(state, make_window(), OBJECTIVE)

    _, decision = decide(state, make_window(peak_bytes=23 * GIB), OBJECTIVE)

    assert decision.reason is Reason.PEAK_ABOVE_TARGET
    assert decision.change is not None
    assert decision.change.action is Action.LIVE


def test_the_end_of_a_pools_only_pod_by_memory_cuts_the_budget() -> None:
    window = make_window(**EMPTY, pods=0, device_bytes=1, out_of_memory=1)

    state, decision = decide(TuningState(START, START), window, OBJECTIVE)

    assert decision.reason is Reason.OUT_OF_MEMORY
    assert state.setting.max_num_batched_tokens == 2048


def test_what_no_budget_causes_takes_pages_and_a_restart() -> None:
    held = {"peak_bytes": int(22.6 * GIB), "peak_activation_bytes": 0, "peak_logits_bytes": 0}

    state, decision = decide(TuningState(START, START), make_window(**held), OBJECTIVE)

    assert decision.reason is Reason.PEAK_ABOVE_TARGET
    assert decision.change is not None
    assert decision.change.action is Action.RESTART
    assert state.setting.max_num_batched_tokens == START.max_num_batched_tokens
    assert 2.8 * GIB < state.setting.kv_pool_bytes < 3 * GIB
    assert state.ceiling_tokens is None
    for _ in range(3):
        state, decision = decide(state, make_window(**held), OBJECTIVE)
        assert decision.change is None
        assert decision.reason is Reason.SETTLING


def test_half_of_the_pages_go_at_once_and_none_where_that_is_no_cure() -> None:
    held = {"peak_bytes": int(23.9 * GIB), "peak_activation_bytes": 0, "peak_logits_bytes": 0}
    small = replace(START, kv_pool_bytes=GIB)

    state, _ = decide(TuningState(small, small), make_window(**held), OBJECTIVE)
    assert state.setting.kv_pool_bytes == GIB // 2

    none = replace(START, kv_pool_bytes=2 << 20)
    _, decision = decide(TuningState(none, none), make_window(**held), OBJECTIVE)
    assert decision.reason is Reason.AT_BOUNDS
    assert decision.change is None


STARVED = {"waiting": 9.0, "running": 8.0, "used_pages": 512.0, "total_pages": 512, "tight": 0.1}


def split(**objective: Any) -> Setting:
    """What a pool asks for whose 8 requests hold all pages while others wait."""
    small = replace(START, kv_pool_bytes=513 << 20)
    sums = StepSums()
    for tokens in (200.0, 900.0, 1600.0) * 20:
        seconds = 0.02 + tokens / 20_000
        sums += StepSums(1, tokens, seconds, tokens * seconds, tokens**2)
    state = TuningState(small, small, sums=sums, bytes_per_token=4e5, starved=2)
    window = make_window(**STARVED, steps=sums, kv_pool_bytes=513 << 20, peak_bytes=15 * GIB)

    state, decision = decide(state, window, replace(OBJECTIVE, **objective))

    assert decision.reason is Reason.SPLIT_MOVED
    return state.setting


def held_bytes(setting: Setting, other_bytes: float = GIB) -> float:
    """As an engine divides the device at its start."""
    activations = 4e5 * setting.max_num_batched_tokens
    return 12 * GIB + other_bytes + setting.kv_pool_bytes + activations + 1e5 * setting.max_num_logits


def test_a_split_stays_within_what_engines_divide_when_they_start() -> None:
    whole, part = split(), split(start_share=0.7)

    assert 0.7 * 24 * GIB < held_bytes(whole) <= 0.9 * 24 * GIB
    assert held_bytes(part) <= 0.7 * 24 * GIB
    assert held_bytes(split(reserved_bytes=4 * GIB), 4 * GIB) <= 0.9 * 24 * GIB


def test_a_split_starts_with_a_budget_that_holds_the_longest_sequence() -> None:
    assert split(least_start_tokens=9000).max_num_batched_tokens >= 9000


def test_no_pod_and_no_end_changes_nothing() -> None:
    _, decision = decide(TuningState(START, START), make_window(**EMPTY, pods=0), OBJECTIVE)

    assert decision.reason is Reason.NO_READINGS
    assert decision.change is None


def test_a_latency_above_its_objective_shortens_steps_before_it_shrinks_the_budget() -> None:
    objective = replace(OBJECTIVE, latency_p95_seconds=5.0)
    state = TuningState(START, START)
    for _ in range(20):
        state, decision = decide(state, make_window(latency_p95_seconds=7.5), objective)
        if state.setting.max_num_batched_tokens < START.max_num_batched_tokens:
            break
        assert decision.reason in (Reason.LATENCY_ABOVE_OBJECTIVE, Reason.SETTLING)

    assert state.setting.refresh_share == 0.1
    assert state.setting.max_num_batched_tokens == int(0.8 * START.max_num_batched_tokens)
    _, decision = decide(replace(state, settling=0), make_window(latency_p95_seconds=4.0), objective)
    assert decision.change is None


def test_steps_that_are_all_alike_or_next_to_nothing_tell_no_speed() -> None:
    assert fit_speed(StepSums(20, 2000, 1.0, 100.0, 200_000)) is None
    assert fit_speed(StepSums(16, 5e-176, 1.0, 0.0, 0.0)) is None
    assert fit_speed(StepSums(20, 2000, 2e-318, 2.2e-315, 300_000)) is None
    assert fit_speed(StepSums(16, 1.6e-159, 1.0, 16.0, 3.2e-319)) is None
