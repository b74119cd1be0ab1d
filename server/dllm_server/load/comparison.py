"""Two endpoints under the same load, as ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.load.summary import Summary

SPREADS = {"queue": "queue", "first": "first block", "pause": "pause between blocks", "end": "end to end"}
SHARES = ("mean", "p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Ratio:
    """``second / first`` over all rounds, and the least and the largest of single rounds; NaN where either
    has none."""

    name: str
    first: float
    second: float
    least: float
    largest: float

    @property
    def ratio(self) -> float:
        return divided(self.second, self.first)


def figures(summary: Summary) -> dict[str, float]:
    """The figures that two endpoints are compared by."""
    found = {
        "answered a second": summary.answered_per_second,
        "good a second": summary.good_per_second,
        "tokens a second": summary.tokens_per_second,
    }
    for field, name in SPREADS.items():
        for share in SHARES:
            found[f"{name} {share}"] = getattr(getattr(summary, field), share)
    return found


def compare(first: Summary, second: Summary, rounds: Sequence[tuple[Summary, Summary]] = ()) -> list[Ratio]:
    """Of the whole, with what single rounds gave."""
    each = [(figures(one), figures(other)) for one, other in rounds]
    ratios = []
    whole = figures(second)
    for name, value in figures(first).items():
        single = [divided(other[name], one[name]) for one, other in each]
        known = [ratio for ratio in single if not math.isnan(ratio)]
        least, largest = min(known, default=math.nan), max(known, default=math.nan)
        ratios.append(Ratio(name, value, whole[name], least, largest))
    return ratios


def divided(value: float, by: float) -> float:
    return value / by if by else math.nan
