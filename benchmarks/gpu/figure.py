"""One measured figure, and what it must reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A line of the acceptance list: ``limit`` must be reached, ``goal`` is the ambition. With ``is_ceiling``
    lower is better."""

    line: int
    limit: float
    goal: float | None = None
    is_ceiling: bool = False

    def is_reached(self, value: float) -> bool:
        return value <= self.limit if self.is_ceiling else value >= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """``target`` None: reported, nothing asked. ``note`` says what bounds the measurement."""

    name: str
    value: float
    unit: str
    target: Target | None = None
    note: str = ""

    def record(self) -> dict[str, Any]:
        row: dict[str, Any] = {"name": self.name, "value": self.value, "unit": self.unit}
        if self.target is not None:
            row |= {
                "line": self.target.line,
                "target": self.target.limit,
                "goal": self.target.goal,
                "is_ceiling": self.target.is_ceiling,
                "is_reached": self.target.is_reached(self.value),
            }
        return row | ({"note": self.note} if self.note else {})


@dataclass(slots=True)
class PartResult:
    """What one part has measured so far: figures for the table, ``data`` for the plots and for whoever looks
    closer. It outlives the part's failure."""

    figures: list[Figure] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, value: float, unit: str, target: Target | None = None, note: str = "") -> None:
        self.figures.append(Figure(name, value, unit, target, note))
