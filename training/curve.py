"""Draws a run's loss curve: `python -m training.curve --help`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot


def draw(losses: Path, image: Path) -> None:
    """`losses` is what training appends to; `image` is a PNG."""
    lines = [json.loads(line) for line in losses.read_text(encoding="utf-8").splitlines()]
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot([line["step"] for line in lines], [line["refresh_loss"] for line in lines], label="refresh")
    reused = [line for line in lines if line["reuse_loss"] > 0]
    axes.plot([line["step"] for line in reused], [line["reuse_loss"] for line in reused], label="reuse")
    axes.set(xlabel="step", ylabel="loss a masked token", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(image, dpi=110)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("losses", type=Path)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    draw(options.losses, options.image)


if __name__ == "__main__":
    main()
