"""How many requests want to be served at once, from what a door counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Look:
    """``running`` counts a request in a slow pool as what it would be in the fastest, which ends it sooner.
    ``arrived`` and ``finished`` count since the door began."""

    at_seconds: float
    waiting: int
    running: float
    arrived: int
    finished: int


@dataclass(frozen=True, slots=True)
class Demand:
    """``arrivals`` a second; ``service_seconds`` is what a request takes without waiting, None while too few
    have ended."""

    arrivals: float
    service_seconds: float | None
    waiting: int
    running: float

    def need(self, utilization: float, drain_seconds: float) -> float:
        """Requests to hold at once: those that arrivals keep running, with room for their luck, or with room
        in which the queue ends within ``drain_seconds``; all that there are while it is not known how long
        one takes."""
        if self.service_seconds is None:
            return self.running + self.waiting
        steady = self.arrivals * self.service_seconds
        return max(
            steady / utilization, steady + self.waiting * min(self.service_seconds / drain_seconds, 1.0)
        )


FEWEST_FINISHED = 8  # for a mean
RECENT_SECONDS = 60.0
DEVIATIONS = 2.0  # of a Poisson count, beyond which the newest arrivals are a change and not luck


def demand(looks: Sequence[Look]) -> Demand:
    """From at least one look, oldest first; what a door counted before it began anew is left out."""
    newest = looks[-1]
    before = [look for look in looks if look.arrived <= newest.arrived and look.finished <= newest.finished]
    finished = newest.finished - before[0].finished
    service = None
    if finished >= FEWEST_FINISHED:
        held_seconds = sum(
            (after.at_seconds - look.at_seconds) * (look.running + after.running) / 2
            for look, after in pairwise(before)
        )
        service = held_seconds / finished
    return Demand(_arrivals(before), service, newest.waiting, newest.running)


def _arrivals(looks: Sequence[Look]) -> float:
    """The mean of all looks, within what the newest of them allow."""
    oldest, newest = looks[0], looks[-1]
    seconds = newest.at_seconds - oldest.at_seconds
    if seconds <= 0:
        return 0.0
    mean = (newest.arrived - oldest.arrived) / seconds
    recent = [look for look in looks[:-1] if look.at_seconds >= newest.at_seconds - RECENT_SECONDS] or looks[
        -2:
    ]
    count, lately = newest.arrived - recent[0].arrived, newest.at_seconds - recent[0].at_seconds
    spread = DEVIATIONS * max(count, 1) ** 0.5
    return min(max(mean, (count - spread) / lately), (count + spread) / lately)
