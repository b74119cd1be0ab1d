"""Arrival processes and length profiles of the open-loop part."""

from __future__ import annotations

import itertools
import statistics

import pytest

from benchmarks.gpu.arrivals import BURST_SHAPE, PROFILES, Arrival, arrivals

VOCABULARY = 100


def gaps_of(found: list[Arrival]) -> list[float]:
    return [later.seconds - earlier.seconds for earlier, later in itertools.pairwise(found)]


@pytest.mark.parametrize("shape", [1.0, BURST_SHAPE])
def test_arrivals_come_at_the_asked_rate(shape: float) -> None:
    found = arrivals([(2000.0, 5.0)], PROFILES["tiny"], VOCABULARY, shape=shape)

    assert len(found) / 2000.0 == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize(("shape", "variation"), [(1.0, 1.0), (BURST_SHAPE, 2.0)])
def test_gaps_vary_as_poisson_and_twice_as_much_in_bursts(shape: float, variation: float) -> None:
    gaps = gaps_of(arrivals([(2000.0, 5.0)], PROFILES["tiny"], VOCABULARY, shape=shape))

    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.1)


def test_each_phase_has_its_own_rate() -> None:
    found = arrivals([(100.0, 1.0), (100.0, 10.0), (100.0, 2.0)], PROFILES["tiny"], VOCABULARY)

    counts = [sum(start <= a.seconds < start + 100 for a in found) for start in (0, 100, 200)]

    assert counts[0] == pytest.approx(100, rel=0.3)
    assert counts[1] == pytest.approx(1000, rel=0.15)
    assert counts[2] == pytest.approx(200, rel=0.25)
    assert [a.seconds for a in found] == sorted(a.seconds for a in found)


def test_the_same_seed_gives_the_same_load() -> None:
    load = [arrivals([(10.0, 5.0)], PROFILES["chat"], VOCABULARY, seed=3) for _ in range(2)]

    assert load[0] == load[1]


@pytest.mark.parametrize("name", PROFILES)
def test_prompts_stay_within_their_profile(name: str) -> None:
    profile = PROFILES[name]

    found = arrivals([(100.0, 5.0)], profile, VOCABULARY)

    lengths = [len(a.job.prompt) for a in found]
    assert profile.shortest <= min(lengths) <= max(lengths) <= profile.longest
    assert statistics.median(lengths) == pytest.approx(profile.median_tokens, rel=0.2)
    assert {a.job.max_tokens for a in found} == {profile.max_tokens}
