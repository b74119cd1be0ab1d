"""Budget, peak and throughput over the looks, a column a memory limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GIB = 1024**3


def draw(record: dict[str, Any], image: Path) -> None:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SystemExit("matplotlib is not installed: pip install matplotlib") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    parts = record["parts"]
    figure, grid = pyplot.subplots(
        3, len(parts), figsize=(4.5 * len(parts), 8), layout="constrained", squeeze=False, sharex="col"
    )
    for column, (limit, part) in enumerate(parts.items()):
        looks = [row["look"] for row in part["tuned"]]
        budget, peak, rate = (grid[line][column] for line in range(3))
        budget.step(looks, [row["budget"] for row in part["tuned"]], where="post")
        peak.plot(looks, [row["peak_bytes"] / GIB for row in part["tuned"]], label="peak")
        peak.plot(looks, [row["device_bytes"] / GIB for row in part["tuned"]], "--", label="device")
        rate.plot(looks, [row["tokens_per_second"] for row in part["tuned"]], label="tuned")
        for number, row in enumerate(part["fixed"], 1):
            if row["tokens_per_second"]:
                rate.axhline(
                    row["tokens_per_second"],
                    linestyle=":",
                    color=f"C{number}",
                    label=f"fixed {row['tokens']}",
                )
        budget.set(title=limit, ylabel="token budget")
        peak.set(ylabel="GiB")
        rate.set(xlabel="look", ylabel="committed tokens a second")
        budget.set_ylim(0, 1.1 * max(row["budget"] for row in part["tuned"]))
        peak.set_ylim(0, 1.1 * part["tuned"][0]["device_bytes"] / GIB)
        for axes in (peak, rate):
            axes.legend(fontsize=7)
        for axes in (budget, peak, rate):
            axes.grid(alpha=0.3)
    figure.savefig(image, dpi=110)
