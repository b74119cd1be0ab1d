"""When requests come and how long they are: seeded, so that every system gets the same load."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.job import Job

BURST_SHAPE = 0.25  # of the gamma distribution of gaps; 1 is Poisson


@dataclass(frozen=True, slots=True)
class LengthProfile:
    """Log-normal prompt lengths cut to [``shortest``, ``longest``]; the canvas is the same for all."""

    median_tokens: int
    sigma: float
    shortest: int
    longest: int
    max_tokens: int

    def prompt_tokens(self, rng: random.Random) -> int:
        drawn = self.median_tokens * rng.lognormvariate(0.0, self.sigma)
        return int(min(max(drawn, self.shortest), self.longest))


PROFILES = {
    "chat": LengthProfile(120, 0.8, 16, 600, 256),  # short chat in bursts
    "code": LengthProfile(450, 0.5, 150, 1200, 256),  # a coding problem with its examples
    "summarise": LengthProfile(1000, 0.3, 500, 1600, 256),  # documents to summarise and compare
    "tiny": LengthProfile(16, 0.5, 4, 60, 16),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    seconds: float
    job: Job


def gaps(rate: float, shape: float, rng: random.Random) -> float:
    """Seconds to the next arrival at ``rate`` a second: gamma with mean 1 / rate, Poisson at shape 1."""
    return rng.gammavariate(shape, 1.0 / (rate * shape))


def arrivals(
    phases: Sequence[tuple[float, float]],
    profile: LengthProfile,
    vocabulary: int,
    *,
    shape: float = 1.0,
    seed: int = 0,
) -> list[Arrival]:
    """Arrivals over ``phases`` of (seconds, requests a second), one after the other."""
    rng = random.Random(seed)
    found, start = [], 0.0
    for seconds, rate in phases:
        now = start + gaps(rate, shape, rng)
        while now < start + seconds:
            found.append(
                Arrival(now, random_job(profile.prompt_tokens(rng), profile.max_tokens, vocabulary, rng))
            )
            now += gaps(rate, shape, rng)
        start += seconds
    return found


def random_job(prompt_tokens: int, max_tokens: int, vocabulary: int, rng: random.Random) -> Job:
    return Job([rng.randrange(vocabulary) for _ in range(prompt_tokens)], max_tokens)
