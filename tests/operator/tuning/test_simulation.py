"""The controller drives plants of several GPU types to within 5% of the best fixed setting of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from dllm_operator.tuning.controller import decide
from dllm_operator.tuning.decision import Action, Decision
from dllm_operator.tuning.objective import Objective
from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operator.tuning.plant import (
    GIB,
    GPUS,
    MIB,
    ExactPlant,
    Gpu,
    Plant,
    Traffic,
    best_fixed,
    llada2_mini,
    sdar_8b,
    twice,
)

TARGET = 0.92
WINDOWS = 60
STEADY_AFTER = 32  # windows from any start: two moves of the split with their cooldown between
GOOD = 0.95
GOOD_WITH_EXPERTS = 0.9  # the more tokens, the more of their weights a step reads: no line fits its seconds


@dataclass(frozen=True)
class Run:
    """What happened, window by window, and in the end."""

    settings: list[Setting]
    windows: list[PoolWindow]
    decisions: list[Decision]
    state: TuningState
    out_of_memory: int

    def rate(self, last: int = 10) -> float:
        return sum(window.committed_per_second for window in self.windows[-last:]) / last

    def changes(self, since: int = 0) -> list[Decision]:
        return [decision for decision in self.decisions[since:] if decision.change is not None]


def objective_for(plant: Plant) -> Objective:
    return Objective(TARGET, plant.bounds(), plant.page_bytes, plant.bytes_per_row)


def drive(plant: Plant, start: Setting, windows: int = WINDOWS) -> Run:
    """Each window under the setting of the moment; a change holds from the next one on."""
    state = TuningState(start, start)
    used, seen, decided = [], [], []
    first_other = plant.other_bytes
    for _ in range(windows):
        window = plant.run(state.setting)
        used.append(state.setting)
        state, decision = decide(state, window, objective_for(plant))
        if decision.change is not None and decision.change.action is Action.RESTART:
            plant.other_bytes = first_other
        seen.append(window)
        decided.append(decision)
    return Run(used, seen, decided, state, plant.out_of_memory)


def saturating(gpu: Gpu, burst: float = 1.0) -> Traffic:
    """Twice what the GPU could ever do."""
    return twice(Traffic(0.0, burst), gpu)


@pytest.mark.sampled(0.3)
@pytest.mark.parametrize("burst", [1.0, 0.25], ids=["poisson", "bursts"])
@pytest.mark.parametrize("tokens", [1024, 4096, 32_768], ids=["low", "middle", "high"])
@pytest.mark.parametrize("gpu", GPUS, ids=[gpu.name for gpu in GPUS])
def test_every_gpu_type_gets_within_five_percent_of_the_best_fixed_setting(
    gpu: Gpu, tokens: int, burst: float
) -> None:
    plant = Plant(gpu, saturating(gpu, burst), seed=3)
    _, best = best_fixed(replace(plant, seed=9), TARGET)

    run = drive(plant, plant.start_setting(tokens))

    assert all(window.committed_per_second >= GOOD * best for window in run.windows[STEADY_AFTER:])
    assert run.out_of_memory <= 1


@pytest.mark.sampled(0.3)
@pytest.mark.parametrize("tokens", [256, 4096, 32_768], ids=["low", "middle", "high"])
@pytest.mark.parametrize(
    ("make", "gpu", "good"),
    [(sdar_8b, gpu, GOOD) for gpu in GPUS]
    + [(llada2_mini, gpu, GOOD_WITH_EXPERTS) for gpu in GPUS if gpu.gib > 32],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", None)),
)
def test_block_causal_models_get_near_the_best_fixed_setting(
    make: Callable[[Gpu], ExactPlant], gpu: Gpu, good: float, tokens: int
) -> None:
    plant = replace(make(gpu), seed=3)
    _, best = best_fixed(replace(plant, seed=9), TARGET)

    run = drive(plant, plant.start_setting(tokens))

    assert all(window.committed_per_second >= good * best for window in run.windows[STEADY_AFTER:])
    assert run.out_of_memory <= 1


@pytest.mark.parametrize("gpu", GPUS[:4], ids=[gpu.name for gpu in GPUS[:4]])
def test_a_start_that_runs_out_of_memory_does_so_once(gpu: Gpu) -> None:
    plant = Plant(gpu, saturating(gpu), seed=5, bytes_per_token=0.6 * MIB)
    _, best = best_fixed(replace(plant, seed=9), TARGET)

    run = drive(plant, plant.start_setting(16_384, believed_bytes_per_token=0.1 * MIB))

    assert run.out_of_memory <= 1
    assert run.rate() >= GOOD * best
    assert all(window.peak_share <= TARGET for window in run.windows[STEADY_AFTER:])


def test_without_demand_nothing_is_changed() -> None:
    plant = Plant(GPUS[0], Traffic(0.5), seed=1)

    run = drive(plant, plant.start_setting(4096))

    assert run.changes() == []


def test_a_length_shift_in_mid_run_is_followed() -> None:
    plant = Plant(GPUS[2], saturating(GPUS[2]), seed=2)
    first = drive(plant, plant.start_setting(1024))
    plant.traffic = replace(plant.traffic, tokens_per_step=112.0, longest_tokens=2048, kept_tokens=800.0)
    _, best = best_fixed(replace(plant, seed=9), TARGET)

    second = drive(plant, first.state.setting)

    assert second.rate() >= GOOD * best
    assert second.out_of_memory == 0


def test_a_leak_restarts_the_pods_and_costs_no_budget() -> None:
    gpu = GPUS[0]
    plant = Plant(gpu, saturating(gpu), seed=4, leak_bytes_per_window=0.35 * GIB)
    start = replace(plant.start_setting(8192), kv_pool_bytes=40 * GIB)

    run = drive(plant, start, windows=90)

    leaks = [d for d in run.decisions if d.reason == "Leak"]
    assert leaks
    assert leaks[0].change is not None
    assert leaks[0].change.action is Action.RESTART
    assert leaks[0].change.setting.max_num_batched_tokens >= 8192
    assert not [d for d in run.decisions if d.reason == "OutOfMemory"]


plants = st.builds(
    Plant,
    gpu=st.sampled_from(GPUS),
    traffic=st.builds(
        Traffic,
        per_second=st.floats(0.1, 40),
        burst=st.sampled_from([0.25, 1.0]),
        tokens_per_step=st.floats(34, 160),
        longest_tokens=st.sampled_from([512, 1024, 2048]),
        kept_tokens=st.floats(64, 1500),
    ),
    seed=st.integers(0, 10_000),
    bytes_per_token=st.floats(0.25 * MIB, 0.6 * MIB),
    other_bytes=st.floats(0.8 * GIB, 1.6 * GIB),
    usable=st.floats(0.5, 1.0),
)


@settings(max_examples=40, deadline=None)
@given(plants, st.sampled_from([1024, 2048, 8192, 32_768]))
def test_bounds_hold_out_of_memory_comes_at_most_once_and_changes_end(plant: Plant, tokens: int) -> None:
    bounds = plant.bounds()
    tokens = max(tokens, plant.traffic.longest_tokens)

    run = drive(plant, plant.start_setting(tokens))

    assert all(bounds.holds(setting) for setting in run.settings)
    assert run.out_of_memory <= 1
    late = run.changes(since=STEADY_AFTER)
    assert len(late) <= 3, [f"{decision.reason}: {decision.message}" for decision in late]
    assert not _turns_back(run.settings[STEADY_AFTER:])


def _turns_back(used: list[Setting]) -> bool:
    """Whether the token budget goes up and down and up again by more than noise."""
    tokens = [key for key, _ in itertools.groupby(setting.max_num_batched_tokens for setting in used)]
    signs = [later > earlier for earlier, later in itertools.pairwise(tokens)]
    return sum(left != right for left, right in itertools.pairwise(signs)) >= 2
