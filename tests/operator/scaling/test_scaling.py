"""Pods by demand: the cheapest that do, rules against flapping, and days and bursts beside an oracle."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import exp

import pytest
from dllm_operator.scaling.demand import Look, Served, demand
from dllm_operator.scaling.mix import Pool, cheapest, cost, grown, held, shrunk
from dllm_operator.scaling.policy import Rules, ScalingReason, ScalingState, Target, decide
from hypothesis import given
from hypothesis import strategies as st

from tests.operator.scaling.simulation import Case, Course, Kind, bursts, by_policy, day, oracle, serve

RULES = Rules()
MOST_OVER_ORACLE = 1.15
MOST_TURNS = 3  # in two hours of chance arrivals

pools_of = st.lists(
    st.builds(
        lambda holds, cost, fewest, more: (holds, cost, fewest, fewest + more),
        st.sampled_from([0.5, 1.0, 3.0, 8.0, 20.0]),
        st.sampled_from([0.5, 1.0, 2.5, 4.0]),
        st.integers(0, 2),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=3,
).map(lambda rows: [Pool(f"pool-{number}", *row) for number, row in enumerate(rows)])


@given(pools_of, st.floats(0, 150))
def test_the_cheapest_pods_that_do(pools: list[Pool], need: float) -> None:
    found = cheapest(pools, need)

    assert all(pool.fewest <= found[pool.name] <= pool.most for pool in pools)
    everything = {pool.name: pool.most for pool in pools}
    if held(pools, everything) < need:
        assert found == everything
        return
    assert held(pools, found) >= need
    counts = itertools.product(*(range(pool.fewest, pool.most + 1) for pool in pools))
    each = (dict(zip((pool.name for pool in pools), pods, strict=True)) for pods in counts)
    best = min(cost(pools, pods) for pods in each if held(pools, pods) >= need)
    assert cost(pools, found) <= best + max(pool.cost for pool in pools)


@given(pools_of, st.floats(0, 150), st.floats(0, 150))
def test_growing_adds_and_shrinking_takes_no_pod_that_is_needed(
    pools: list[Pool], before: float, need: float
) -> None:
    pods = cheapest(pools, before)
    more, fewer = grown(pools, pods, need), shrunk(pools, pods, need)

    assert all(fewer[name] <= pods[name] <= more[name] for name in pods)
    assert held(pools, fewer) >= min(need, held(pools, pods)) - 1e-6
    best = cheapest(pools, need)
    for pool in pools:
        if fewer[pool.name] > best[pool.name]:
            assert held(pools, fewer) - pool.holds < need


def test_a_queue_counts_by_how_long_it_may_last() -> None:
    looks = [Look(0, 0, 4, 0, 0), Look(100, 12, 4, 62, 50)]

    found = demand(looks, Served().and_then(*looks))

    assert found.service_seconds == 8.0
    assert found.need(1.0, drain_seconds=48) == pytest.approx(0.62 * 8 + 12 * 8 / 48)
    assert demand(looks[:1], Served()).need(1.0, drain_seconds=48) == 4
    assert demand([Look(0, 10, 0, 10, 0)], Served()).need(0.9, drain_seconds=48) == 10


def test_a_door_that_began_anew_is_counted_from_there() -> None:
    looks = [
        Look(0, 0, 4, 900, 900),
        Look(60, 0, 4, 1000, 1000),
        Look(90, 0, 4, 10, 8),
        Look(120, 0, 4, 40, 38),
    ]
    served = Served()
    for before, look in pairwise(looks):
        served = served.and_then(before, look)

    found = demand(looks, served)

    assert served.requests == pytest.approx(100 * exp(-30 / 1800) + 30)
    assert found.service_seconds == pytest.approx(2.4 * 100 / 130 + 4 * 30 / 130, rel=0.01)
    assert found.arrivals == 1.0


def look_after(
    state: ScalingState, at: float, pods: dict[str, int], **seen: float
) -> tuple[ScalingState, Target]:
    pools = [Pool("a", 4, 1.0, 0, 5), Pool("b", 8, 6.0, 0, 5)]
    numbers = {"waiting": 0, "running": 0.0, "arrived": 0, "finished": 0} | seen
    rules = Rules(idle_seconds=120.0, stabilization_seconds=60.0)
    return decide(state, Look(at, **numbers), pools, pods, pods, rules)  # type: ignore[arg-type]


def test_ten_at_once_wake_three_pods_of_four_and_all_sleep_again() -> None:
    state, target = look_after(ScalingState(), 0, {"a": 0, "b": 0})
    assert (target.pods, target.reason) == ({"a": 0, "b": 0}, ScalingReason.ENOUGH)
    state, target = look_after(state, 15, {"a": 0, "b": 0}, waiting=10, arrived=10)
    assert (target.pods, target.reason) == ({"a": 3, "b": 0}, ScalingReason.GROWS)
    for at in (30, 45, 60):
        state, target = look_after(state, at, {"a": 3, "b": 0}, waiting=10, arrived=10)
        assert target.pods == {"a": 3, "b": 0}
    state, target = look_after(state, 75, {"a": 3, "b": 0}, running=10, arrived=10)
    assert target.pods == {"a": 3, "b": 0}
    pods = {"a": 3, "b": 0}
    for at in range(90, 180, 15):
        state, target = look_after(state, at, pods, arrived=10, finished=10)
        pods = dict(target.pods)
        assert pods["a"] >= 1
    _, target = look_after(state, 195, pods, arrived=10, finished=10)
    assert (target.pods, target.reason) == ({"a": 0, "b": 0}, ScalingReason.SLEEPS)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(0, 40), st.integers(0, 60)), min_size=2, max_size=40),
    pools_of,
)
def test_nothing_shrinks_soon_after_it_was_needed(
    seen: Sequence[tuple[int, float, int]], pools: list[Pool]
) -> None:
    state, arrived, finished = ScalingState(), 0, 0
    pods = {pool.name: pool.fewest for pool in pools}
    needs: list[tuple[float, float]] = []
    for number, (waiting, running, count) in enumerate(seen):
        at, arrived, finished = 15.0 * number, arrived + count, finished + count // 2
        look = Look(at, waiting, running, arrived, finished)
        state, target = decide(state, look, pools, pods, pods, RULES)
        needs.append((at, target.need))
        assert all(pool.fewest <= target.pods[pool.name] <= pool.most for pool in pools)
        most = max(need for when, need in needs if when > at - RULES.stabilization_seconds)
        assert held(pools, target.pods) >= min(most, held(pools, pods)) - 1e-6
        pods = dict(target.pods)


def one(most: int = 40, slots: int = 8) -> Kind:
    return Kind(Pool("only", slots, 1.0, 1, most), slots)


MIXED = (Kind(Pool("fast", 16, 3.0, 0, 20), 16), Kind(Pool("slow", 4, 0.5, 1, 20), 8, 0.5))
CASES = {
    "a day": Case((one(),), day(3, 2.5, 7200)),
    "a day of two pools": Case(MIXED, day(3, 2.5, 7200)),
    "bursts": Case((one(),), bursts(1, 4, 3600, 1200), 40.0, start_seconds=30.0),
    "bursts of slow starts": Case((one(),), bursts(1, 4, 3600, 1800), 190.0, start_seconds=180.0),
    "a step": Case((one(),), bursts(1, 3, 7200, 7200), 130.0, start_seconds=120.0),
    "as ever": Case((one(),), lambda at: 3.0),
    "hardly anything": Case((one(),), lambda at: 0.2),
    "large pods": Case((Kind(Pool("only", 64, 1.0, 1, 10), 64),), day(9, 7, 7200)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_objective_is_kept_almost_as_cheaply_as_by_one_that_knows_the_future(name: str) -> None:
    case = CASES[name]
    rules = replace(RULES, drain_seconds=max(4 * case.start_seconds, 120.0))
    ours, best = serve(case, by_policy(case, rules), seed=1), oracle(case, rules, seed=1)

    assert ours.wait(0.95) <= case.patience, told(ours, best)
    assert ours.cost <= MOST_OVER_ORACLE * best.cost, told(ours, best)
    assert ours.turns(RULES.stabilization_seconds) <= MOST_TURNS, told(ours, best)


def told(ours: Course, best: Course) -> str:
    return (
        f"{ours.cost / best.cost:.3f} of the oracle's cost, p95 waits {ours.wait(0.95):.1f} s and "
        f"{best.wait(0.95):.1f} s, {ours.turns(RULES.stabilization_seconds)} turns"
    )
