"""Draws a run's loss curve: `python -m training.curve --help`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot


def draw(losses: Path, image: Path) -> None:
    """`losses` is what training appends to; `image` is a PNG, with the families in a panel of their own."""
    lines = [json.loads(line) for line in losses.read_text(encoding="utf-8").splitlines()]
    reused = [line for line in lines if line["reuse_loss"] > 0]
    every_family = dict.fromkeys(family for line in lines for family in line.get("families", {}))
    panels = [{"refresh": _points(lines, "refresh_loss"), "reuse": _points(reused, "reuse_loss")}]
    if every_family:
        by_family = [{"step": line["step"], **line["families"]} for line in lines if "families" in line]
        panels.append({family: _points(by_family, family) for family in every_family})
    figure, (row,) = pyplot.subplots(
        1, len(panels), figsize=(7 * len(panels), 4), layout="constrained", squeeze=False
    )
    for axes, curves in zip(row, panels, strict=True):
        for label, points in curves.items():
            axes.plot(*points, label=label)
        axes.set(xlabel="step", ylabel="loss a masked token", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in row[1:]:
        axes.set(title="refresh, by family")
    figure.savefig(image, dpi=110)


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have `name`."""
    present = [line for line in lines if name in line]
    return [line["step"] for line in present], [line[name] for line in present]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("losses", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    draw(options.losses, options.image)


if __name__ == "__main__":
    main()
