"""When requests come: seeded, so that every system gets the same load."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

BURST_SHAPE = 0.25  # of the gamma distribution of gaps; 1 is Poisson

Job = TypeVar("Job")
Draw = Callable[[random.Random, int], Job]  # the job of the arrival with this index


@dataclass(frozen=True, slots=True)
class Arrival(Generic[Job]):
    seconds: float
    job: Job


def gap(rate: float, shape: float, rng: random.Random) -> float:
    """Seconds to the next arrival at ``rate`` a second: gamma with mean 1 / rate, Poisson at shape 1."""
    return rng.gammavariate(shape, 1.0 / (rate * shape))


def arrivals(
    phases: Sequence[tuple[float, float]], draw: Draw[Job], *, shape: float = 1.0, seed: int = 0
) -> Iterator[Arrival[Job]]:
    """Arrivals over ``phases`` of (seconds, requests a second), one after the other; the last may be
    endless."""
    rng = random.Random(seed)
    index, start = 0, 0.0
    for seconds, rate in phases:
        now = start + gap(rate, shape, rng)
        while now < start + seconds:
            yield Arrival(now, draw(rng, index))
            index += 1
            now += gap(rate, shape, rng)
        start += seconds
