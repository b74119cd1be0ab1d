"""The search for the rate at which an objective breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

MOST_DOUBLINGS = 20
MOST_HALVINGS = 6


@dataclass(frozen=True, slots=True)
class Trial:
    rate: float
    has_held: bool


@dataclass(frozen=True, slots=True)
class Sweep:
    """Doubles or halves the first rate until one has held and one has broken, then halves the interval
    between them, as a ratio, until it is within ``tolerance``."""

    first_rate: float
    tolerance: float = 0.05
    trials: tuple[Trial, ...] = ()

    @property
    def broken(self) -> float:
        """The lowest rate that broke; infinite while none did."""
        return min((trial.rate for trial in self.trials if not trial.has_held), default=math.inf)

    @property
    def held(self) -> float:
        """The highest rate below it that held; 0 while none did."""
        return max((trial.rate for trial in self.trials if trial.has_held), default=0.0)

    def next_rate(self) -> float | None:
        """What to try now; None when the answer is known, or no rate in reach holds or breaks."""
        if not self.trials:
            return self.first_rate
        if math.isinf(self.broken):
            return 2 * self.held if self.held < self.first_rate * 2**MOST_DOUBLINGS else None
        if self.held == 0.0:
            return self.broken / 2 if self.broken > self.first_rate / 2**MOST_HALVINGS else None
        return math.sqrt(self.held * self.broken) if self.broken > self.held * (1 + self.tolerance) else None

    def tried(self, rate: float, *, has_held: bool) -> Sweep:
        return replace(self, trials=(*self.trials, Trial(rate, has_held)))
