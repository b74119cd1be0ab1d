"""Arrivals of prompts that are random tokens: the same load for every system."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dllm_server.load.arrivals import Arrival, arrivals
from dllm_server.load.lengths import LengthProfile

from benchmarks.job import Job


def job_arrivals(
    phases: Sequence[tuple[float, float]],
    profile: LengthProfile,
    vocabulary: int,
    *,
    shape: float = 1.0,
    seed: int = 0,
) -> list[Arrival[Job]]:
    """Arrivals over ``phases`` of (seconds, requests a second), one after the other."""

    def draw(rng: random.Random, index: int) -> Job:
        return random_job(profile.prompt_tokens(rng), profile.max_tokens, vocabulary, rng)

    return list(arrivals(phases, draw, shape=shape, seed=seed))


def random_job(prompt_tokens: int, max_tokens: int, vocabulary: int, rng: random.Random) -> Job:
    return Job([rng.randrange(vocabulary) for _ in range(prompt_tokens)], max_tokens)
