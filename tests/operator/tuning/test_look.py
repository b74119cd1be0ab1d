"""A look at a pool: what it leads to, by mode, readings and what stands around."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dllm_operator.api.tuning import TuningMode, TuningSpec
from dllm_operator.tuning.decision import Reason
from dllm_operator.tuning.look import ROLLBACK_LOOKS, STUCK_LOOKS, Outcome, Surroundings, look
from dllm_operator.tuning.observation import observe_pool
from dllm_operator.tuning.reading import PodReading, parse_reading
from dllm_operator.tuning.record import Memory, PoolTuning
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.state import TuningState
from engine_metrics import HELD, MIB, make_snapshot, make_window, metrics_text

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPECIFIED = Setting(1024, 16, 256, 0.5, 0)
STARTED = replace(SPECIFIED, kv_pool_bytes=200 * MIB)
LIVE = {"max_num_batched_tokens": 1024, "max_num_seqs": 16, "max_num_logits": 256, "refresh_share": 0.5}
TIGHT = 0.95  # of the 1000 MiB


def spec(**fields: Any) -> TuningSpec:
    return TuningSpec.model_validate({"mode": "Auto", "targetMemoryUtilization": 0.95} | fields)


def around(**changes: Any) -> Surroundings:
    values: dict[str, Any] = {
        "spec": spec(),
        "is_host_memory": False,
        "start_share": 0.9,
        "restart_waits_for": None,
        "is_restarting": False,
        "is_failing": False,
        "last_end": "",
    }
    return Surroundings(**(values | changes))


def reading(*numbers: int, activations: int = 40 * MIB, generation: int = 0, **engine: Any) -> PodReading:
    windows = (make_window(n, activations=activations, generation=generation) for n in numbers)
    snapshot = make_snapshot(*windows, **({"live": LIVE, "tuning_generation": generation} | engine))
    return parse_reading(metrics_text(snapshot))


def begin(**state: Any) -> PoolTuning:
    return PoolTuning(Memory("key", replace(TuningState(SPECIFIED, SPECIFIED), **state), SPECIFIED))


def after(
    tuning: PoolTuning, now: dict[str, PodReading], *, kills: int = 0, host_kills: int = 0, **more: Any
) -> Outcome:
    silent = more.pop("silent", {})
    seen = observe_pool(
        {}, now, silent, generation=tuning.state.generation, kills=kills, host_kills=host_kills
    )
    return look(tuning, seen, now, around(**more), NOW)


def test_the_first_look_learns_what_the_engines_started_with() -> None:
    found = after(begin(), {"a": reading(0, live=LIVE | {"max_num_batched_tokens": 700})})

    state = found.tuning.state
    assert found.change is None
    assert state.setting == state.started == replace(STARTED, max_num_batched_tokens=700)
    assert found.tuning.memory.max_model_len == 512
    assert found.tuning.memory.page_bytes == 200 * MIB // 101
    assert found.tuning.memory.bytes_per_row == 10 * MIB / 64
    assert (found.tuning.peak_bytes, found.tuning.device_bytes) == (900 * MIB, 1000 * MIB)


def test_a_peak_above_target_is_cut_at_once_and_said() -> None:
    found = after(begin(), {"a": reading(0, activations=120 * MIB)})

    assert found.change is not None
    assert found.change.reason is Reason.PEAK_ABOVE_TARGET
    state = found.tuning.state
    assert state.generation == 1
    assert state.setting.max_num_batched_tokens < 1024
    assert found.tuning.last_change is not None
    assert found.tuning.last_change.reason == Reason.PEAK_ABOVE_TARGET
    assert found.tuning.last_change.time == NOW
    assert "98.0% of the device" in found.tuning.message


def test_observe_says_what_it_would_do_and_does_nothing() -> None:
    tuning = begin()
    for _ in range(3):
        found = after(tuning, {"a": reading(0, activations=120 * MIB)}, spec=spec(mode="Observe"))
        tuning = found.tuning

        assert found.change is None
        assert tuning.state.setting == tuning.state.started == STARTED
        assert (tuning.state.generation, tuning.state.calm) == (0, 0)
        assert tuning.proposal.startswith("peak at 98.0%")
        assert tuning.last_change is None
    assert tuning.state.window == 3


def test_observe_after_auto_judges_what_runs_and_keeps_what_was_tuned() -> None:
    tuned = replace(SPECIFIED, max_num_batched_tokens=300, kv_pool_bytes=123 * MIB)
    tuning = begin(generation=3, setting=tuned, started=tuned)
    untuned = {"a": reading(0, activations=120 * MIB)}  # as Observe has it: the specification's settings
    seen = observe_pool({}, untuned, {}, generation=0)

    found = look(tuning, seen, untuned, around(spec=spec(mode="Observe")), NOW)

    assert found.change is None
    assert "max_num_batched_tokens 1024 -> " in found.tuning.proposal
    assert (found.tuning.state.setting, found.tuning.state.started) == (tuned, tuned)
    assert found.tuning.state.generation == 3


def test_a_restart_waits_for_the_rollout_of_another_pool() -> None:
    grown = begin(other_bytes=(50 * MIB, 60 * MIB, 70 * MIB, 80 * MIB, 90 * MIB), base_other_bytes=50 * MIB)
    held = {"peak_bytes": HELD | {"other": 120 * MIB, "activations": 40 * MIB, "logits": 10 * MIB}}
    leaking = parse_reading(metrics_text(make_snapshot(make_window(0, **held), live=LIVE)))

    waiting = after(grown, {"a": leaking}, restart_waits_for="a rollout to end")
    going = after(grown, {"a": leaking}, restart_waits_for=None)

    assert waiting.change is None
    assert waiting.tuning.message.startswith("waits for a rollout to end: ")
    assert waiting.tuning.state.restart_generation == 0
    assert going.change is not None
    assert going.tuning.reason is Reason.LEAK
    assert going.tuning.state.restart_generation == going.tuning.state.generation == 1


def test_pods_that_never_apply_are_named_and_nothing_is_changed() -> None:
    tuning = begin(generation=3)
    for number in range(STUCK_LOOKS):
        found = after(tuning, {"a": reading(0, activations=200 * MIB, generation=2)})
        tuning = found.tuning
        assert found.change is None
        assert tuning.reason == (Reason.APPLYING if number < STUCK_LOOKS - 1 else Reason.NOT_APPLIED)

    assert "a did not take over generation 3" in tuning.message
    assert tuning.state.generation == 3


def test_a_restart_that_pods_do_not_survive_is_taken_back() -> None:
    bad = replace(STARTED, kv_pool_bytes=900 * MIB)
    tuning = begin(
        setting=bad,
        started=bad,
        fallback=STARTED,
        fallback_restart=2,
        generation=4,
        restart_generation=4,
    )
    tuning = replace(tuning, memory=replace(tuning.memory, applying=ROLLBACK_LOOKS - 1))

    found = after(tuning, {"old": reading(0, generation=3)}, is_failing=True)

    assert found.tuning.reason is Reason.ROLLED_BACK
    state = found.tuning.state
    assert state.setting == state.started == STARTED
    assert (state.generation, state.restart_generation, state.fallback) == (5, 2, None)


def test_a_restart_that_never_comes_is_taken_back_though_old_pods_take_over_what_is_live() -> None:
    bad = replace(STARTED, kv_pool_bytes=300 * MIB)
    tuning = begin(setting=bad, started=bad, fallback=STARTED, generation=4, restart_generation=4)
    reasons = []

    for number in range(ROLLBACK_LOOKS):
        found = after(tuning, {"old": reading(number, generation=4)}, is_restarting=True, is_failing=True)
        tuning = found.tuning
        reasons.append(tuning.reason)

    assert reasons[: STUCK_LOOKS - 1] == [Reason.APPLYING] * (STUCK_LOOKS - 1)
    assert reasons[STUCK_LOOKS - 1 : -1] == [Reason.NOT_APPLIED] * (ROLLBACK_LOOKS - STUCK_LOOKS)
    assert reasons[-1] is Reason.ROLLED_BACK
    assert tuning.state.setting == STARTED


def test_a_restart_that_was_undone_is_taken_back_at_once_and_its_old_pods_stay() -> None:
    bad = replace(STARTED, kv_pool_bytes=300 * MIB)
    tuning = begin(setting=bad, started=bad, fallback=STARTED, generation=4, restart_generation=4)

    found = after(tuning, {"old": reading(0, generation=4)}, is_restarting=True, is_undone=True)

    state = found.tuning.state
    assert (found.tuning.reason, state.setting, state.started) == (Reason.ROLLED_BACK, STARTED, STARTED)
    assert (state.generation, state.restart_generation) == (5, 0)
    assert after(found.tuning, {"old": reading(1, generation=5)}, is_undone=True).change is None


def test_a_restart_that_may_not_begin_says_what_it_waits_for() -> None:
    tuning = begin(setting=STARTED, started=STARTED, fallback=SPECIFIED, generation=4, restart_generation=4)

    found = after(
        tuning, {"old": reading(0, generation=4)}, is_restarting=True, restart_held_by="its turn to roll out"
    )

    assert found.tuning.reason is Reason.NOT_APPLIED
    assert found.tuning.message == "the restart for generation 4 waits for its turn to roll out"


def test_a_restart_whose_new_pods_load_is_waited_for() -> None:
    tuning = begin(setting=STARTED, started=STARTED, fallback=SPECIFIED, generation=4, restart_generation=4)

    for number in range(2 * ROLLBACK_LOOKS):
        tuning = after(tuning, {"old": reading(number, generation=4)}, is_restarting=True).tuning
        assert tuning.reason is Reason.APPLYING

    assert tuning.state.generation == 4


def test_status_tells_the_settings_that_run_and_not_those_wished_for() -> None:
    wished = replace(STARTED, max_num_batched_tokens=2048, kv_pool_bytes=300 * MIB)
    tuning = begin(setting=wished, started=wished, generation=4, restart_generation=4)

    found = after(tuning, {"old": reading(0, generation=4)}, is_restarting=True)

    running = found.tuning.status().settings
    assert (running.max_num_batched_tokens, running.kv_pool_bytes) == (1024, HELD["kv_pool"])
    assert found.tuning.state.setting == wished


@pytest.mark.parametrize("silent", ["dllm_kv_pages is nan", "no metrics within 5 s"])
def test_readings_that_vanish_or_lie_change_nothing_and_are_said(silent: str) -> None:
    found = after(begin(), {}, silent={"a": silent})

    assert found.change is None
    assert found.tuning.reason is Reason.NO_READINGS
    assert found.tuning.notes == (f"a: {silent}",)


def test_a_device_that_ran_out_is_counted_and_cut() -> None:
    found = after(begin(), {}, kills=1, last_end="2026-01-01T00:00:00Z")

    assert found.tuning.reason is Reason.OUT_OF_MEMORY
    assert found.tuning.out_of_memory == 1
    assert found.tuning.state.setting.max_num_batched_tokens == 512
    assert found.tuning.memory.last_end == "2026-01-01T00:00:00Z"


def test_an_end_before_the_last_cut_can_have_arrived_does_not_cut_again() -> None:
    tuning = after(begin(), {}, kills=1).tuning
    seen = observe_pool({}, {}, {}, generation=tuning.state.generation, kills=1)

    soon = look(tuning, seen, {}, around(), NOW + timedelta(seconds=30))
    late = look(tuning, seen, {}, around(), NOW + timedelta(seconds=120))

    assert soon.change is None
    assert soon.tuning.reason is Reason.APPLYING
    assert soon.tuning.out_of_memory == 2
    assert late.tuning.state.setting.max_num_batched_tokens == 256


@pytest.mark.parametrize("is_host_memory", [True, False], ids=["cpu", "gpu"])
def test_a_host_that_ran_out_is_cut_only_where_it_is_the_device(is_host_memory: bool) -> None:
    found = after(begin(), {}, host_kills=1, is_host_memory=is_host_memory)

    assert found.tuning.reason is Reason.HOST_OUT_OF_MEMORY
    assert found.tuning.host_out_of_memory == 1
    assert (found.change is not None) is is_host_memory
    if not is_host_memory:
        assert "raise resources.limits.memory" in found.tuning.message


def busy(generation: int = 0, ceiling: int = 4096, **window: Any) -> PodReading:
    """Steps are full and requests wait."""
    full = make_window(
        0,
        generation=generation,
        **(
            {"tight_steps": 20, "most_waiting": 9, "peak_step_tokens": 1024, "activations": 40 * MIB} | window
        ),
    )
    snapshot = make_snapshot(
        full,
        live=LIVE,
        tuning_generation=generation,
        ceilings={"max_num_batched_tokens": ceiling},
    )
    return parse_reading(metrics_text(snapshot))


def test_demand_grows_the_budget_to_what_engines_take_live_and_no_further() -> None:
    tuning = begin()
    before = busy()
    earlier = replace(before, windows=(), sums=replace(before.sums, steps=50, tokens=20_000, seconds=1.0))
    seen = observe_pool({"a": earlier}, {"a": busy(ceiling=1200)}, {}, generation=0)

    found = look(tuning, seen, {"a": busy(ceiling=1200)}, around(), NOW)

    assert found.change is not None
    assert found.change.reason is Reason.CAUTIOUS_STEP
    assert found.tuning.state.setting.max_num_batched_tokens == 1200


def test_a_users_bounds_hold() -> None:
    bounds = {"maxNumBatchedTokens": {"min": 1000, "max": 1200}}
    before = busy()
    earlier = replace(before, windows=(), sums=replace(before.sums, steps=50, tokens=20_000, seconds=1.0))
    seen = observe_pool({"a": earlier}, {"a": busy()}, {}, generation=0)

    up = look(begin(), seen, {"a": busy()}, around(spec=spec(bounds=bounds)), NOW)
    down = after(begin(), {"a": reading(0, activations=140 * MIB)}, spec=spec(bounds=bounds))

    assert up.tuning.state.setting.max_num_batched_tokens == 1200
    assert down.tuning.state.setting.max_num_batched_tokens == 1000


def test_off_is_never_looked_at() -> None:
    assert TuningSpec().mode is TuningMode.OFF
