"""What a soak does and how it is judged, without a cluster: events dealt from seeded decks, and what clients
may see of each.

A request is accepted once its connection is established. Each try of one ends as

    ok        the whole answer came
    503       refused with that status, in words
    refused   no connection came about: nothing was accepted
    broken    the connection, or the stream, ended without the whole answer
    wrong     anything else
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Self, TypeVar

Target = TypeVar("Target")

KINDS = ("ok", "503", "refused", "broken")
NOTICED_SECONDS = 15.0  # a container that is killed by the API server's word ends a little later
GRACE_SECONDS = 60.0  # until every node has the Service's pods again: broken watches wait to be renewed
PAUSE_SECONDS = (1.0, 6.0)
OUTAGE_SECONDS = (5.0, 15.0)
NODE_OUTAGE_SECONDS = (25.0, 100.0)  # pods move to another node after 80


class Harm(StrEnum):
    """The most that a client may see of an event; a 503 with a retry that succeeds is always possible."""

    NONE = "none"
    REFUSED = "refused"  # connections, until the pool is Ready again
    BROKEN = "broken"  # what the pod that is killed was answering; and refused


class Event(StrEnum):
    # In the pool under load, one at a time
    ROLL = "edit that replaces the pods"
    SCALE = "edit of replicas"
    DELETE_POD = "pod deleted"
    DRAIN_NODE = "node drained"
    STOP_KUBELET = "kubelet killed, back later"
    DELETE_BY_FORCE = "pod deleted by force"
    KILL_ENGINE = "engine process killed"
    KILL_SERVER = "server process killed"
    CUT_POWER = "node's processes killed, back later"
    # Beside it
    MAKE = "resource made"
    EDIT = "resource edited"
    REMOVE = "resource deleted"
    DAMAGE = "child of a resource deleted"
    DAMAGE_SERVING = "child of the pool under load deleted"
    STOP_LEADER = "leading operator told to stop"
    KILL_LEADER = "leading operator killed"
    KILL_OPERATORS = "both operators killed"
    KILL_API_SERVER = "API server killed, back later"
    KILL_ETCD = "etcd killed, back later"


@dataclass(frozen=True)
class Terms:
    """How often an event is in its deck, what it may do to requests, and how long what it stops is gone."""

    weight: int
    harm: Harm = Harm.NONE
    outage_seconds: tuple[float, float] = (0.0, 0.0)


Lane = Mapping[Event, Terms]

SERVING: Lane = {
    Event.ROLL: Terms(1),
    Event.SCALE: Terms(2),
    Event.DELETE_POD: Terms(2),
    Event.DRAIN_NODE: Terms(1),
    Event.STOP_KUBELET: Terms(1, outage_seconds=NODE_OUTAGE_SECONDS),
    Event.DELETE_BY_FORCE: Terms(1, Harm.BROKEN),
    Event.KILL_ENGINE: Terms(1, Harm.BROKEN),
    Event.KILL_SERVER: Terms(1, Harm.BROKEN),
    Event.CUT_POWER: Terms(1, Harm.BROKEN, NODE_OUTAGE_SECONDS),
}
BESIDE: Lane = {
    Event.MAKE: Terms(3),
    Event.EDIT: Terms(4),
    Event.REMOVE: Terms(2),
    Event.DAMAGE: Terms(3),
    Event.DAMAGE_SERVING: Terms(1),
    Event.STOP_LEADER: Terms(1),
    Event.KILL_LEADER: Terms(1),
    Event.KILL_OPERATORS: Terms(1),
    # A Service cannot forget a pod while nobody can be told of it.
    Event.KILL_API_SERVER: Terms(1, Harm.REFUSED, OUTAGE_SECONDS),
    Event.KILL_ETCD: Terms(1, Harm.REFUSED, OUTAGE_SECONDS),
}
TERMS: Lane = {**SERVING, **BESIDE}


@dataclass(frozen=True)
class Step:
    """One event: after a pause, and on whichever target ``choice`` (0 to 1) points to."""

    event: Event
    pause_seconds: float
    choice: float
    outage_seconds: float = 0.0

    def pick(self, targets: Sequence[Target]) -> Target:
        return targets[int(self.choice * len(targets))]


def deal(lane: Lane, seed: int, longest_outage_seconds: float) -> Iterator[Step]:
    """Without end: a shuffled deck that holds every event of the lane by its weight, then the next deck."""
    chance = random.Random(seed)
    while True:
        deck = [event for event, terms in lane.items() for _ in range(terms.weight)]
        chance.shuffle(deck)
        for event in deck:
            least, most = lane[event].outage_seconds
            outage = chance.uniform(least, max(least, min(most, longest_outage_seconds)))
            yield Step(event, chance.uniform(*PAUSE_SECONDS), chance.random(), outage)


@dataclass(frozen=True)
class Try:
    """Times are the client's clock's."""

    began: float
    ended: float
    outcome: str

    @property
    def kind(self) -> str:
        return self.outcome.partition(" ")[0]


@dataclass(frozen=True)
class Request:
    """One request with all its tries, of which the last answered it or was given up."""

    how: str  # fresh, kept: the connection; stream
    tries: tuple[Try, ...]

    @classmethod
    def parse(cls, line: str) -> Self:
        said = json.loads(line)
        return cls(said["how"], tuple(Try(*each) for each in said["tries"]))

    @property
    def is_answered(self) -> bool:
        return self.tries[-1].kind == "ok"

    @property
    def seconds(self) -> float:
        return self.tries[-1].ended - self.tries[0].began


@dataclass(frozen=True)
class Happening:
    """What was done: begun, done, and over, when the pool under load was Ready again."""

    event: Event
    began: float
    done: float
    over: float
    open_connections: int | None = (
        None  # of the process that was killed, at ``done``, where they were counted
    )

    def may_refuse(self, one: Try) -> bool:
        is_meanwhile = one.ended >= self.began and one.began <= self.over + GRACE_SECONDS
        return TERMS[self.event].harm is not Harm.NONE and is_meanwhile

    def may_break(self, one: Try) -> bool:
        is_now = self.began <= one.ended <= self.done + NOTICED_SECONDS
        return TERMS[self.event].harm is Harm.BROKEN and is_now


def faults(requests: Iterable[Request], happenings: Sequence[Happening]) -> list[str]:
    """What no client should have seen."""
    requests = list(requests)
    found = [f"never answered: {request}" for request in requests if not request.is_answered]
    tries = [(request.how, one) for request in requests for one in request.tries]
    for how, one in tries:
        match one.kind:
            case "ok" | "503":
                continue
            case "refused" if any(each.may_refuse(one) for each in happenings):
                continue
            case "broken" if any(each.may_break(one) for each in happenings):
                continue
        found.append(f"{how} without cause: {one}")
    broken = [one for _, one in tries if one.kind == "broken"]
    for each in happenings:
        if each.open_connections is not None:
            here = [one for one in broken if each.may_break(one) and one.began < each.done]
            if len(here) > each.open_connections:
                found.append(f"{each} broke more than its connections: {here}")
    return found


def figures(requests: Sequence[Request], happenings: Sequence[Happening]) -> dict[str, str]:
    """By what they are of, in the order of a table."""
    first = Counter(request.tries[0].kind for request in requests)
    seconds = sorted(request.seconds for request in requests if request.is_answered)
    retried = [request for request in requests if request.tries[0].kind != "ok"]
    answers = sorted(request.tries[-1].ended for request in requests if request.is_answered)
    gaps = [later - earlier for earlier, later in pairwise(answers)]
    events = Counter(each.event for each in happenings)
    rows = {
        "events": str(len(happenings)),
        "requests sent": str(len(requests)),
        "answered at the first try": str(first["ok"]),
        "first try: 503": str(first["503"]),
        "first try: connection refused (not accepted)": str(first["refused"]),
        "first try: broken with the pod or process that was killed": str(first["broken"]),
        "first try: anything else": str(sum(first.values()) - sum(first[kind] for kind in KINDS)),
        "answered at a retry": f"{sum(request.is_answered for request in retried)} of {len(retried)}",
    }
    if seconds:
        rows["seconds to the answer, retries included"] = (
            f"{quantile(seconds, 0.5):.2f} median, {quantile(seconds, 0.99):.2f} p99, {seconds[-1]:.1f} most"
        )
        rows["longest time without any answer"] = f"{max(gaps, default=0.0):.1f} s"
    return rows | {f"event: {event}": str(events[event]) for event in Event if events[event]}


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
