"""How long requests are."""

from __future__ import annotations

import random
from dataclasses import dataclass


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
    "tiny": LengthProfile(16, 0.5, 4, 60, 16),  # for models that are tried, not measured
}
