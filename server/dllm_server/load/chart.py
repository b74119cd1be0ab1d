"""Charts as inline SVG, from numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 44
MOST_POINTS = 1500  # of a series; more are thinned, the ends kept


@dataclass(frozen=True, slots=True)
class Series:
    """Points in the order of x; drawn as a line, as steps or as dots, in the page's colour of this number."""

    name: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    style: str = "line"


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that cover [low, high], about as many as wanted."""
    if not high > low:
        return [low]
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def chart(
    title: str, series: Sequence[Series], *, x: str, y: str, marks: Sequence[tuple[float, str]] = ()
) -> str:
    """One chart with its axes from 0; ``marks`` are vertical lines with a word. Empty without points."""
    drawn = [Series(s.name, _thinned(s.points), s.color, s.style) for s in series if s.points]
    if not drawn:
        return ""
    across = ticks(0.0, max([p[0] for s in drawn for p in s.points] + [at for at, _ in marks]) or 1.0)
    up = ticks(0.0, max(p[1] for s in drawn for p in s.points) or 1.0)
    plane = _Plane(across[-1], up[-1])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_upright(plane, tick) for tick in across),
        *(_level(plane, tick) for tick in up),
        *(_mark(plane, at, word) for at, word in marks),
        *(_drawn(plane, s) for s in drawn),
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x)}</text>",
        f'<text class="axis" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y)}</text>',
        "</svg>",
    ]
    keys = "".join(f'<span class="key c{s.color}">{escape(s.name)}</span>' for s in drawn)
    return f"<figure><figcaption>{escape(title)} {keys}</figcaption>{''.join(parts)}</figure>"


@dataclass(frozen=True, slots=True)
class _Plane:
    widest: float
    highest: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.widest

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.highest

    def at(self, point: tuple[float, float]) -> str:
        return f"{self.x(point[0]):.1f} {self.y(point[1]):.1f}"


def _upright(plane: _Plane, value: float) -> str:
    at = plane.x(value)
    return (
        f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_number(value)}</text>'
    )


def _level(plane: _Plane, value: float) -> str:
    at = plane.y(value)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(value)}</text>'
    )


def _mark(plane: _Plane, value: float, word: str) -> str:
    at = plane.x(value)
    return (
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="mark" x="{at - 4:.1f}" y="{TOP + 12}" text-anchor="end">{escape(word)}</text>'
    )


def _drawn(plane: _Plane, series: Series) -> str:
    if series.style == "dots":
        dots = "".join(f"M{plane.at(point)}h0" for point in series.points)
        return f'<path class="dots c{series.color}" d="{dots}"/>'
    path = f"M{plane.at(series.points[0])}"
    for point in series.points[1:]:
        if series.style == "steps":
            path += f"H{plane.x(point[0]):.1f}V{plane.y(point[1]):.1f}"
        else:
            path += f"L{plane.at(point)}"
    return f'<path class="line c{series.color}" d="{path}"/>'


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= MOST_POINTS:
        return points
    return [points[round(place * (len(points) - 1) / (MOST_POINTS - 1))] for place in range(MOST_POINTS)]


def _number(value: float) -> str:
    return f"{value:,.6g}"
