"""How many requests want to be served at once, from what a door counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt


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


@dataclass(frozen=True, slots=True)
class Served:
    """Requests that have ended and the seconds that they ran, of which the older count less."""

    requests: float = 0.0
    seconds: float = 0.0

    def and_then(self, before: Look, look: Look) -> Served:
        """With what happened between two looks; of a door that began anew in between nothing is known."""
        finished, passed = look.finished - before.finished, look.at_seconds - before.at_seconds
        if finished < 0 or look.arrived < before.arrived:
            return self
        kept = exp(-passed / SERVICE_SECONDS)
        ran = passed * (before.running + look.running) / 2
        return Served(self.requests * kept + finished, self.seconds * kept + ran)

    @property
    def mean_seconds(self) -> float | None:
        """Of a request; None while too few have ended."""
        return self.seconds / self.requests if self.requests >= FEWEST_FINISHED else None


FEWEST_FINISHED = 8  # for a mean
SERVICE_SECONDS = 1800.0  # how long a request is takes longer to change than how many come
RECENT_SECONDS = 60.0
DEVIATIONS = 2.0  # of a Poisson count, beyond which the newest arrivals are a change and not luck


def demand(looks: Sequence[Look], served: Served) -> Demand:
    """From at least one look, oldest first; what a door counted before it began anew is left out."""
    newest = looks[-1]
    since = [look for look in looks if look.arrived <= newest.arrived and look.finished <= newest.finished]
    return Demand(_arrivals(since), served.mean_seconds, newest.waiting, newest.running)


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
    spread = DEVIATIONS * sqrt(max(count, 1))
    return min(max(mean, (count - spread) / lately), (count + spread) / lately)
