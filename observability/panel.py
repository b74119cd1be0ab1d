"""What a dashboard shows, before it is Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

QUANTILES = (0.5, 0.95, 0.99)
RATE_INTERVAL = "$__rate_interval"


class Shape(StrEnum):
    LINES = "lines"
    AREAS = "areas"  # stacked
    NUMBER = "number"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL with Grafana's variables in it, and the legend of a series."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit`` is Grafana's id of one; ``text`` says what is worth knowing, in a line."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    shape: Shape = Shape.LINES
    text: str = ""
    width: int = 8  # of 24


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice above the dashboard: the values of ``label`` among the series of ``selector``."""

    name: str
    label: str
    selector: str
    title: str


@dataclass(frozen=True, slots=True)
class Board:
    name: str
    title: str
    text: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]


def rate(counter: str, selector: str, by: str = "") -> str:
    """A second, summed over what is not in ``by``."""
    return f"sum{f' by ({by})' if by else ''} (rate({counter}{{{selector}}}[{RATE_INTERVAL}]))"


def quantiles(histogram: str, selector: str, by: str = "") -> tuple[Query, ...]:
    """The usual ones of a histogram's seconds."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            f"histogram_quantile({quantile}, {rate(f'{histogram}_bucket', selector, labels)})",
            f"{legend}p{quantile * 100:g}",
        )
        for quantile in QUANTILES
    )
