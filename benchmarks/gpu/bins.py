"""Long series made short enough to keep and to draw."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SAMPLES = 400  # of a series kept in a record


def binned(rows: Sequence[Sequence[float]], most: int) -> list[list[float]]:
    """At most ``most`` rows: the column means of runs of neighbours, in order."""
    size = -(-len(rows) // most)
    groups = [rows[start : start + size] for start in range(0, len(rows), size)] if rows else []
    return [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
