"""How long the last answers took, exactly: what a page shows, where Prometheus has histograms."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

KEPT_TIMES = 512


@dataclass(slots=True)
class RecentTimes:
    """The last ``KEPT_TIMES`` of each kind, in seconds."""

    queue: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    first_block: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))
    end_to_end: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_TIMES))


def percentile(values: deque[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of ``values`` do not exceed; None where there is none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else None
