"""How far a step fills in from the left: what a strategy makes of a run of tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_server.settings import Strategy


@dataclass(frozen=True, slots=True)
class Bound:
    """``quota``, ``threshold`` and ``value`` as in ``SlotTable``; ``counts_own`` as in
    ``denoise.by_entropy_bound``."""

    strategy: Strategy
    value: float
    quota: int
    threshold: float
    counts_own: bool

    def may_admit(self, taken: int) -> bool:
        """Whether any token would be taken behind ``taken`` others that the step has chosen."""
        is_counted = self.strategy in (Strategy.QUOTA, Strategy.SEQUENTIAL)
        return not is_counted or taken < max(self.quota, 1)

    def admits(self, taken: int, confidence: float, entropy: float, entropies: float) -> bool:
        """Whether a token is taken behind ``taken`` others that the step has chosen, the first always.

        Args:
            confidence: higher is surer. entropy: in nats, and ``entropies`` the sum of the others'.
        """
        if taken == 0:
            return True
        match self.strategy:
            case Strategy.FACTOR:
                return confidence >= 1.0 - self.value / (taken + 2)
            case Strategy.ENTROPY_BOUND if self.counts_own:
                return entropies + entropy < self.value
            case Strategy.ENTROPY_BOUND:
                return entropies <= self.value
            case _:
                return taken < self.quota or confidence >= self.threshold
