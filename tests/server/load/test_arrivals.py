"""Arrival processes and length profiles of open loops."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest
from dllm_server.load.arrivals import BURST_SHAPE, Arrival, arrivals
from dllm_server.load.lengths import PROFILES

from benchmarks.gpu.arrivals import job_arrivals


def index_of(rng: random.Random, index: int) -> int:
    return index


def gaps_of(found: list[Arrival[int]]) -> list[float]:
    return [later.seconds - earlier.seconds for earlier, later in itertools.pairwise(found)]


@pytest.mark.parametrize("shape", [1.0, BURST_SHAPE])
def test_arrivals_come_at_the_asked_rate(shape: float) -> None:
    found = list(arrivals([(2000.0, 5.0)], index_of, shape=shape))

    assert len(found) / 2000.0 == pytest.approx(5.0, rel=0.05)
    assert [arrival.job for arrival in found] == list(range(len(found)))


@pytest.mark.parametrize(("shape", "variation"), [(1.0, 1.0), (BURST_SHAPE, 2.0)])
def test_gaps_vary_as_poisson_and_twice_as_much_in_bursts(shape: float, variation: float) -> None:
    gaps = gaps_of(list(arrivals([(2000.0, 5.0)], index_of, shape=shape)))

    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.1)


def test_each_phase_has_its_own_rate() -> None:
    found = list(arrivals([(100.0, 1.0), (100.0, 10.0), (100.0, 2.0)], index_of))

    counts = [sum(start <= a.seconds < start + 100 for a in found) for start in (0, 100, 200)]

    assert counts[0] == pytest.approx(100, rel=0.3)
    assert counts[1] == pytest.approx(1000, rel=0.15)
    assert counts[2] == pytest.approx(200, rel=0.25)
    assert [a.seconds for a in found] == sorted(a.seconds for a in found)


def test_the_same_seed_gives_the_same_load() -> None:
    load = [job_arrivals([(10.0, 5.0)], PROFILES["chat"], 100, seed=3) for _ in range(2)]

    assert load[0] == load[1]


@pytest.mark.parametrize("name", PROFILES)
def test_prompts_stay_within_their_profile(name: str) -> None:
    profile = PROFILES[name]

    found = job_arrivals([(100.0, 5.0)], profile, 100)

    lengths = [len(a.job.prompt) for a in found]
    assert profile.shortest <= min(lengths) <= max(lengths) <= profile.longest
    assert statistics.median(lengths) == pytest.approx(profile.median_tokens, rel=0.2)
    assert {a.job.max_tokens for a in found} == {profile.max_tokens}
