"""What the pods of a door say of requests: HAProxy's statistics, and how many it holds. Pure."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dllm_operator.scaling.demand import Look

PATH = "/stats;csv"
HELD_PATH = "/held"
FIRST = "first"  # the server of the first door, to which a second one sends what it does not count itself
FEWEST_REQUESTS = 8  # of a pool, for a mean
LEAST_SPEED = 1 / 64


@dataclass(frozen=True, slots=True)
class PoolCount:
    """Requests in a pool's pods now, those that have been there, and the mean seconds of one there."""

    running: int = 0
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DoorCount:
    """Of one pod of the door, or of all. ``arrived`` and ``finished`` count since it began."""

    waiting: int
    arrived: int
    finished: int
    pools: Mapping[str, PoolCount] = field(default_factory=dict)


def door_count(stats: str, held: str) -> DoorCount:
    """``ValueError`` where these are not a door's."""
    rows = [_numbers(row) for row in csv.DictReader(io.StringIO(stats.removeprefix("# ")))]
    alone = {(row.proxy, row.server): row for row in rows}
    try:
        asked, queue = alone["door", "FRONTEND"], alone["engines", "BACKEND"]
    except KeyError as error:
        raise ValueError("no counts of a front door") from error
    servers = [row for row in rows if row.proxy == "engines" and row is not queue]
    engines = [row for row in servers if row.pool != FIRST]
    arrived = asked.requests
    if len(engines) < len(servers):  # a second door, which is asked for what the first will count
        arrived = sum(row.sessions for row in engines)
    pools: dict[str, list[PoolCount]] = defaultdict(list)
    for row in engines:
        pools[row.pool].append(PoolCount(row.running, row.sessions, row.total_seconds - row.queue_seconds))
    return DoorCount(
        waiting=queue.waiting + int(held or 0),
        arrived=arrived,
        finished=sum(row.sessions - row.running for row in engines),
        pools={name: _together(counts) for name, counts in pools.items()},
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """Of HAProxy's statistics: a frontend, a backend, or a server."""

    proxy: str
    server: str
    waiting: int
    running: int
    sessions: int
    requests: int
    queue_seconds: float
    total_seconds: float

    @property
    def pool(self) -> str:
        return self.server.rpartition("-")[0]


def _numbers(row: Mapping[str, str | None]) -> _Row:
    def number(name: str) -> int:
        return int(row.get(name) or 0)

    return _Row(
        row.get("pxname") or "",
        row.get("svname") or "",
        number("qcur"),
        number("scur"),
        number("stot"),
        number("req_tot"),
        number("qtime") / 1000,
        number("ttime") / 1000,
    )


def _together(counts: Iterable[PoolCount]) -> PoolCount:
    counts = list(counts)
    requests = sum(count.requests for count in counts)
    seconds = sum(count.seconds * count.requests for count in counts)
    return PoolCount(
        sum(count.running for count in counts), requests, seconds / requests if requests else 0.0
    )


def total(counts: Sequence[DoorCount]) -> DoorCount:
    """Of all pods of a door."""
    pools: dict[str, list[PoolCount]] = defaultdict(list)
    for count in counts:
        for name, pool in count.pools.items():
            pools[name].append(pool)
    return DoorCount(
        sum(count.waiting for count in counts),
        sum(count.arrived for count in counts),
        sum(count.finished for count in counts),
        {name: _together(own) for name, own in pools.items()},
    )


def speeds(count: DoorCount, known: Mapping[str, float]) -> dict[str, float]:
    """By pool, as a share of the fastest one's, of pools whose pods have answered enough; what is ``known``
    of the others stays."""
    seconds = {
        name: pool.seconds
        for name, pool in count.pools.items()
        if pool.requests >= FEWEST_REQUESTS and pool.seconds > 0
    }
    if len(seconds) < 2:  # nothing to compare with
        return dict(known)
    fastest = min(seconds.values())
    return dict(known) | {name: max(fastest / own, LEAST_SPEED) for name, own in seconds.items()}


def look_at(count: DoorCount, at_seconds: float, speed: Mapping[str, float]) -> Look:
    running = sum(pool.running * speed.get(name, 1.0) for name, pool in count.pools.items())
    return Look(at_seconds, count.waiting, running, count.arrived, count.finished)
