"""Do the watches still tell the truth? Compares the view with a fresh list of versions.

A watch that stalls without an error is the best-known failure of long-lived operators. An object whose newer
version the API server has had for a while, and the view has not, proves one; liveness then fails and the pod
is restarted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Lag:
    """The version that the view lacked when first noticed, and when that was (monotonic seconds)."""

    version: int
    since: float


@dataclass(slots=True)
class WatchAudit:
    """``compare`` after each list; ``stalled_seconds`` then says for how long the view has lagged behind."""

    lags: dict[str, Lag] = field(default_factory=dict)
    last_seconds: float | None = None

    def compare(self, listed: Mapping[str, int], seen: Mapping[str, int], now: float) -> None:
        """``listed`` is what the API server has, ``seen`` what the view has: version by uid."""
        lags = {}
        for uid, version in listed.items():
            known = self.lags.get(uid)
            if known is not None and seen.get(uid, -1) < known.version:
                lags[uid] = known
            elif seen.get(uid, -1) < version:
                lags[uid] = Lag(version, now)
        for uid in seen.keys() - listed.keys():  # deleted, and the view does not know
            lags[uid] = self.lags.get(uid, Lag(-1, now))
        self.lags = lags
        self.last_seconds = now

    def stalled_seconds(self, now: float) -> float:
        """How long the oldest lag has lasted; 0 when the view is current."""
        return max((now - lag.since for lag in self.lags.values()), default=0.0)
