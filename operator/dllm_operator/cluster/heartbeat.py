"""Whether the operator that holds a Lease still renews it.

A renewal that this process sees counts by its own clock, so clocks that differ make nobody dead who is alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from dllm_operator.cluster.kinds import LEASE
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.observe import Manifest

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0  # one look answers for all resources of an owner
UNCHANGED_SECONDS = 30.0  # a leader renews every 2 s, and makes a Lease that was deleted anew


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A Lease as it was last seen: its version (None where it is gone), since when it has had that, when it
    was looked at, and when by its own words it is over."""

    version: str | None
    since: float
    looked_at: float
    over_at: datetime | None

    def is_alive(self, clock: float, now: datetime, grace: timedelta) -> bool:
        """``grace`` is what a Lease that has ended may stay without a holder, as in an upgrade."""
        if clock - self.since < UNCHANGED_SECONDS:
            return True
        return self.over_at is not None and now < self.over_at + grace


class Heartbeats:
    """Of the Leases of other operators, ``NAMESPACE/NAME`` each. One that cannot be read is alive."""

    def __init__(
        self,
        kube: Kube,
        takeover_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._grace = kube, timedelta(seconds=takeover_seconds)
        self._now, self._clock = now, clock
        self._known: dict[str, Heartbeat] = {}

    async def is_alive(self, lease: str) -> bool:
        known = self._known.get(lease)
        if known is None or self._clock() - known.looked_at >= LOOK_SECONDS:
            namespace, _, name = lease.partition("/")
            try:
                body = await self._kube.get(LEASE, namespace, name)
            except (KubeError, OSError) as error:
                log.warning("lease of another operator not read", lease=lease, error=str(error))
                return True
            known = self._known[lease] = _seen(body, known, self._clock())
        return known.is_alive(self._clock(), self._now(), self._grace)


def _seen(body: Manifest | None, known: Heartbeat | None, clock: float) -> Heartbeat:
    version = body["metadata"]["resourceVersion"] if body is not None else None
    is_same = known is not None and known.version == version
    since = known.since if known is not None and is_same else clock
    return Heartbeat(version, since, clock, _over_at((body or {}).get("spec") or {}))


def _over_at(spec: Manifest) -> datetime | None:
    try:
        renewed = datetime.fromisoformat(spec["renewTime"])
        return renewed + timedelta(seconds=spec["leaseDurationSeconds"])
    except (KeyError, TypeError, ValueError):  # a Lease that nobody has held
        return None
