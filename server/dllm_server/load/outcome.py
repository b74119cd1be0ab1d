"""What became of one request."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

CUT = "cut"  # still open when the run ended


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times are seconds since the run began. Latencies count from ``intended``, the arrival that the load
    asked for: that a client was late, or waited for a connection, is part of them. ``blocks`` are the moments
    at which text came."""

    intended: float
    sent: float
    ended: float
    blocks: tuple[float, ...] = ()
    error: str | None = None  # the class of failure; None was answered
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    queue_seconds: float | None = None  # as the server says

    @property
    def first_seconds(self) -> float | None:
        return self.blocks[0] - self.intended if self.blocks else None

    @property
    def end_seconds(self) -> float:
        return self.ended - self.intended

    @property
    def lag_seconds(self) -> float:
        """How late it was sent."""
        return self.sent - self.intended

    @property
    def pauses(self) -> list[float]:
        """Seconds between consecutive blocks."""
        return [later - earlier for earlier, later in pairwise(self.blocks)]
