"""How long the last answers took, exactly: what a page shows, where Prometheus has histograms."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dllm_server.load.percentile import percentile as nearest_rank

KEPT_TIMES = 512


@dataclass(slots=True)
class RecentTimes:
    """The last ``KEPT_TIMES`` of each kind, in seconds."""

    queue: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    first_block: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    end_to_end: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))


def percentile(values: deque[float], share: float) -> float | None:
    """The nearest-rank percentile; None where there is no value."""
    return nearest_rank(values, share) if values else None
