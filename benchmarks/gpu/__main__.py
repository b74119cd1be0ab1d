"""``python -m benchmarks.gpu``: the engine on one GPU at LLaDA-8B's shapes with random weights, against what
bounds it and against a static batch, in one run."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import yaml
from rich.console import Console

from benchmarks.gpu.record import DEFAULT, environment, load
from benchmarks.gpu.scale import SCALES
from benchmarks.gpu.table import figures_table, verdicts

PARTS = (
    "kernels",
    "experts",
    "agreement",
    "limits",
    "offline",
    "single",
    "prompts",
    "idle",
    "open-loop",
    "memory",
    "exact",
    "prefixes",
    "grammars",
)
REFERENCE = "agreement-reference"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    console = Console(width=max(Console().width, 140))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    output = options.output or (Path(tempfile.gettempdir(), "gpu-tiny.json") if options.tiny else DEFAULT)
    if options.table or options.plots:
        return _show(load(options.source or output), options.plots, console)
    if options.part == [REFERENCE]:
        from benchmarks.gpu.agreement import write_reference

        write_reference(console, most_questions=2 if options.tiny else None)
        return 0
    scale = SCALES["tiny" if options.tiny else "quick" if options.quick else "full"]
    if scale.is_tiny:
        import torch

        from benchmarks.interpreter import interpret_kernels

        torch.set_num_threads(1)
        if problem := interpret_kernels():
            console.print(problem)
    from benchmarks.gpu.bench import Bench
    from benchmarks.gpu.suite import run_parts

    changes = dict(_setting(text) for text in options.set)
    run = environment(options.commit) | {"scale": scale.name, "settings": changes}
    bench = Bench(scale, changes, console)
    started = time.monotonic()
    try:
        failed = run_parts(bench, options.part or PARTS, output, run)
    finally:
        bench.close()
    record = load(output)
    console.print(figures_table(record))
    if scale.is_tiny:
        console.print("toy shapes on a CPU: that it runs is all this shows")
    _summary(record, console)
    console.print(f"{time.monotonic() - started:.0f} s in all, written to {output}")
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--part",
        nargs="+",
        choices=(*PARTS, REFERENCE),
        metavar="PART",
        help=f"{', '.join(PARTS)}; {REFERENCE} (CPU)",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the same in short, for a look")
    size.add_argument("--tiny", action="store_true", help="toy shapes on a CPU: shows that everything runs")
    parser.add_argument(
        "--output", type=Path, help=f"JSON file, merged part by part (default {DEFAULT.name})"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="engine settings over the run's own"
    )
    parser.add_argument("--commit", help="what to record where there is no repository")
    parser.add_argument("--table", action="store_true", help="print the table of a file and stop")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw PNGs of a file into DIR and stop")
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="the file of --plots and --table"
    )
    return parser


def _show(record: dict[str, Any], plots: Path | None, console: Console) -> int:
    if not record["parts"]:
        console.print("the file holds no part: run python -m benchmarks.gpu first, or name one with --from")
        return 2
    if plots is None:
        console.print(figures_table(record))
        _summary(record, console)
        return 0
    from benchmarks.gpu.plots import draw

    for path in draw(record, plots):
        console.print(str(path), soft_wrap=True)
    return 0


def _summary(record: dict[str, Any], console: Console) -> None:
    lines = [f"{line} {'reached' if reached else 'MISSED'}" for line, reached in verdicts(record).items()]
    console.print(f"lines of the list: {', '.join(lines) or 'none measured'}", highlight=False)


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise SystemExit(f"--set {text}: write NAME=VALUE")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    sys.exit(main())
