"""What a request must keep to be good."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Self

from dllm_server.load.duration import parse_seconds
from dllm_server.load.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Objective:
    """Longest seconds from the intended arrival to the first block and to the end, and between two blocks."""

    first: float = math.inf
    gap: float = math.inf
    end: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Self:
        """``first=2s,end=10s``; ``ValueError`` names what is wrong."""
        known = [field.name for field in fields(cls)]
        limits: dict[str, float] = {}
        for part in text.split(","):
            name, has_value, value = (piece.strip() for piece in part.partition("="))
            if name not in known or not has_value:
                raise ValueError(
                    f"{part.strip() or 'nothing'}: write {', '.join(known)} as in first=2s,end=10s"
                )
            if name in limits:
                raise ValueError(f"{name} is given twice")
            limits[name] = parse_seconds(value)
            if limits[name] <= 0:
                raise ValueError(f"{name}: must be above 0")
        return cls(**limits)

    def is_met_by(self, outcome: Outcome) -> bool:
        """Whether it was answered in time. An answer without text has its first block at its end."""
        if outcome.error is not None:
            return False
        first = outcome.end_seconds if outcome.first_seconds is None else outcome.first_seconds
        return (
            first <= self.first
            and max(outcome.pauses, default=0.0) <= self.gap
            and outcome.end_seconds <= self.end
        )

    def __str__(self) -> str:
        limits = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ",".join(f"{name}={limit:g}s" for name, limit in limits if limit < math.inf)
