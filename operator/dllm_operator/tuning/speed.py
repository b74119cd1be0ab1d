"""How long a step takes: a floor and a rate, from sums that any two readings of a counter give exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_STEPS = 16  # fewer say nothing
LEAST_SECONDS_PER_TOKEN = 1e-12  # below it is noise
MIN_SPREAD = 0.02  # of the tokens of a step, relative: without it floor and rate cannot be told apart


@dataclass(frozen=True, slots=True)
class StepSums:
    """Over some steps of T tokens and s seconds: count, sum T, sum s, sum T s, sum T^2. Sums of parts add
    up.
    """

    steps: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    tokens_seconds: float = 0.0
    tokens_squared: float = 0.0

    def __add__(self, other: StepSums) -> StepSums:
        return StepSums(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.tokens_seconds + other.tokens_seconds,
            self.tokens_squared + other.tokens_squared,
        )

    def __sub__(self, earlier: StepSums) -> StepSums:
        return self + earlier.scaled(-1.0)

    def scaled(self, weight: float) -> StepSums:
        """Older evidence counts for less."""
        return StepSums(
            self.steps * weight,
            self.tokens * weight,
            self.seconds * weight,
            self.tokens_seconds * weight,
            self.tokens_squared * weight,
        )

    @property
    def mean_tokens(self) -> float:
        return self.tokens / self.steps if self.steps else 0.0


@dataclass(frozen=True, slots=True)
class Speed:
    """A step of T tokens takes ``floor_seconds + T / tokens_per_second``."""

    floor_seconds: float
    tokens_per_second: float

    def step_seconds(self, tokens: float) -> float:
        return self.floor_seconds + tokens / self.tokens_per_second

    def throughput(self, tokens: float) -> float:
        """Tokens a second in steps of that many tokens."""
        return tokens / self.step_seconds(tokens) if tokens > 0 else 0.0

    def knee_tokens(self, efficiency: float) -> float:
        """Tokens of a step that reach ``efficiency`` (below 1) of the rate: t0 rate e / (1 - e)."""
        return self.floor_seconds * self.tokens_per_second * efficiency / (1 - efficiency)


def fit_speed(sums: StepSums) -> Speed | None:
    """Least squares; None where the steps are too few, too alike, or say something impossible."""
    if sums.steps < MIN_STEPS or sums.tokens <= 0 or sums.seconds <= 0:
        return None
    mean_tokens, mean_seconds = sums.mean_tokens, sums.seconds / sums.steps
    variance = sums.tokens_squared / sums.steps - mean_tokens**2
    if variance <= 0 or variance < (MIN_SPREAD * mean_tokens) ** 2:
        return None
    slope = (sums.tokens_seconds / sums.steps - mean_tokens * mean_seconds) / variance
    floor = mean_seconds - slope * mean_tokens
    if not math.isfinite(slope) or slope < LEAST_SECONDS_PER_TOKEN:
        return None
    return Speed(max(floor, 0.0), 1 / slope)
