"""One measurement of a kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """``floor_seconds`` is what no version goes below; ``note`` names launches, memory or a rate."""

    kernel: str
    size: str
    seconds: float
    floor_seconds: float
    note: str = ""
    peak_mib: float | None = None  # above the inputs

    @property
    def ratio(self) -> float:
        """How many times the floor."""
        return self.seconds / self.floor_seconds if self.floor_seconds else 0.0
