"""One queue without a proxy's cost: what no door can beat by much."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from benchmarks.door.engine import EngineSize


def closed_loop(
    works: Sequence[float], clients: int, engines: Sequence[EngineSize]
) -> list[tuple[float, float]]:
    """(sent, answered) of each request where ``clients`` ask one after the other."""
    asking = [0.0] * clients
    queue = _Queue(engines)
    times = []
    for work in works:
        sent = heapq.heappop(asking)
        answered = queue.serve(sent, work)
        heapq.heappush(asking, answered)
        times.append((sent, answered))
    return times


def open_loop(
    works: Sequence[float], arrivals: Sequence[float], engines: Sequence[EngineSize]
) -> list[tuple[float, float]]:
    """(sent, answered) of each request that comes at its time of ``arrivals``."""
    queue = _Queue(engines)
    return [(sent, queue.serve(sent, work)) for sent, work in zip(arrivals, works, strict=True)]


class _Queue:
    """First come, first served, by the fastest free seat."""

    def __init__(self, engines: Sequence[EngineSize]) -> None:
        self._free_at = sorted((0.0, engine.pace) for engine in engines for _ in range(engine.seats))

    def serve(self, sent: float, work: float) -> float:
        first = min(free for free, _ in self._free_at)
        begins = max(sent, first)
        free, pace = min((seat for seat in self._free_at if seat[0] <= begins), key=lambda seat: seat[1])
        self._free_at.remove((free, pace))
        answered = begins + work * pace
        self._free_at.append((answered, pace))
        return answered
