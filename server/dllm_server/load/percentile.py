"""Percentiles of what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that ``share`` of all do not exceed; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Spread:
    """How values lie; NaN where there are none."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        found = sorted(values)
        p50, p95, p99 = (percentile(found, share) for share in (0.5, 0.95, 0.99))
        mean = math.fsum(found) / len(found) if found else math.nan
        return cls(len(found), mean, p50, p95, p99, found[-1] if found else math.nan)
