"""What the pods of a door say of requests: HAProxy's metrics, and how many it holds. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dllm_operator.scaling.demand import Look

PATH = "/metrics?scope=frontend&scope=backend&scope=server&no-maint"
HELD_PATH = "/held"
FEWEST_REQUESTS = 8  # of a pool, for a mean
LEAST_SPEED = 1 / 64
_SAMPLE = re.compile(r'^haproxy_(\w+)\{proxy="(\w+)"(?:,(?:server|code)="([^"]*)")?\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PoolCount:
    """Requests in a pool's pods now, those that have been there, and the mean seconds of one there."""

    running: float = 0.0
    requests: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DoorCount:
    """Of one pod of the door, or of all. ``arrived`` and ``finished`` count since it began."""

    waiting: int
    arrived: int
    finished: int
    pools: Mapping[str, PoolCount] = field(default_factory=dict)


def door_count(metrics: str, held: str) -> DoorCount:
    """``ValueError`` where these are not a door's."""
    alone: dict[tuple[str, str], float] = defaultdict(float)
    servers: dict[str, dict[str, float]] = defaultdict(dict)
    for name, proxy, part, value in _SAMPLE.findall(metrics):
        if name.startswith("server_") and proxy == "engines":
            servers[part][name] = float(value)
        elif not part or part == "2xx":
            alone[proxy, name] = float(value)
    if ("door", "frontend_http_requests_total") not in alone:
        raise ValueError("no metrics of a front door")
    return DoorCount(
        waiting=int(alone["engines", "backend_current_queue"]) + int(held or 0),
        arrived=int(alone["door", "frontend_http_requests_total"]),
        finished=int(alone["engines", "backend_http_responses_total"]),
        pools=_pools(servers),
    )


def _pools(servers: Mapping[str, Mapping[str, float]]) -> dict[str, PoolCount]:
    found: dict[str, list[PoolCount]] = defaultdict(list)
    for name, values in servers.items():
        seconds = values.get("server_total_time_average_seconds", 0.0) - values.get(
            "server_queue_time_average_seconds", 0.0
        )
        count = PoolCount(
            values.get("server_current_sessions", 0.0), values.get("server_sessions_total", 0.0), seconds
        )
        found[name.rpartition("-")[0]].append(count)
    return {name: _together(counts) for name, counts in found.items()}


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
