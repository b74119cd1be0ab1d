"""A device's timeline: which share of a stretch no kernel ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Interval = tuple[float, float]
KERNEL = "kernel"
OPERATOR = "cpu_op"  # what a run without a GPU has instead
COPIES = ("gpu_memcpy", "gpu_memset")


@dataclass(frozen=True, slots=True)
class Busy:
    """Times in the unit of the intervals. ``longest_gaps`` are the ten longest, longest first."""

    span: float
    busy: float
    longest_gaps: list[float]

    @property
    def idle_share(self) -> float:
        return 1.0 - self.busy / self.span if self.span > 0 else 0.0


def busy_time(intervals: Iterable[Interval]) -> Busy:
    """The union of (start, end), over the span from the first start to the last end."""
    ordered = sorted(intervals)
    if not ordered:
        return Busy(0.0, 0.0, [])
    (start, end), busy, gaps = ordered[0], 0.0, []
    first = start
    for begins, ends in ordered[1:]:
        if begins > end:
            busy += end - start
            gaps.append(begins - end)
            start, end = begins, ends
        else:
            end = max(end, ends)
    return Busy(end - first, busy + end - start, sorted(gaps, reverse=True)[:10])


def device_intervals(trace: Mapping[str, Any], categories: Iterable[str] = (KERNEL,)) -> list[Interval]:
    """(start, end) in microseconds of what ran on the device, from a Chrome trace as torch.profiler writes
    it. Annotations on the device's rows are not work."""
    wanted = set(categories)
    return [
        (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        for event in trace["traceEvents"]
        if event.get("cat") in wanted and "dur" in event
    ]


def time_by_name(
    trace: Mapping[str, Any], category: str = KERNEL, most: int = 15
) -> list[tuple[str, float, int]]:
    """Kernel names with their summed microseconds and launches, the longest first."""
    spent: Counter[str] = Counter()
    launches: Counter[str] = Counter()
    for event in trace["traceEvents"]:
        if event.get("cat") == category and "dur" in event:
            spent[event["name"]] += event["dur"]
            launches[event["name"]] += 1
    return [(name[:120], float(time), launches[name]) for name, time in spent.most_common(most)]
