"""Learning rate by step and progress."""

from __future__ import annotations

WARMUP_STEPS = 200
DECAY_FROM = 0.45
FLOOR = 0.01


def learning_rate_factor(step: int, progress: float) -> float:
    """Linear warm-up in steps, a plateau, then a linear fall to FLOOR by `progress` 1."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    falling = 1 - max(0.0, progress - DECAY_FROM) / (1 - DECAY_FROM)
    return warm * max(FLOOR, falling)
