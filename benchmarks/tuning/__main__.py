"""``python -m benchmarks.tuning``: the operator's controller drives the engine on one GPU under memory
limits, beside a sweep of fixed settings in the same run."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.gpu.bench import Bench, Deadline
from benchmarks.gpu.record import environment, load, save
from benchmarks.gpu.scale import FULL, TINY
from benchmarks.tuning.drive import Experiment, is_quiet, serve_fixed, serve_tuned

DEFAULT = Path(__file__).resolve().parent.parent / "results" / "tuning.json"
PART_SECONDS = 550.0
REACHES = 0.97

DOCUMENTS = Experiment(
    limit=None,
    start={
        "max_model_len": 2048,
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 64,
        "kv_pool_bytes": None,
        "retention_ratio": 1.0,
    },
    fixed=(2048, 4000, 16_384),
    fixed_seqs=256,
    fixed_seconds=17.0,
    requests=400,
    quota=1,
    interval_seconds=4.0,
    window_seconds=1.0,
    looks=14,
    steady_looks=4,
)
CHAT = replace(
    DOCUMENTS,
    start=DOCUMENTS.start | {"max_model_len": 1024, "retention_ratio": 0.5},
    fixed=(1024, 4000, 16_384),
    quota=4,
)
LOADS = {"documents": (1000, DOCUMENTS), "chat": (300, CHAT)}  # prompt tokens; all generate 256
LIMITS = ("24GiB", "48GiB", "80GiB")
ON_CPU = replace(
    CHAT,
    start={
        "max_model_len": 64,
        "max_num_batched_tokens": 96,
        "max_num_seqs": 4,
        "kv_pool_bytes": "1MiB",
        "retention_ratio": 0.5,
    },
    fixed=(64, 256),
    fixed_seqs=16,
    fixed_seconds=1.0,
    requests=24,
    interval_seconds=0.5,
    window_seconds=0.1,
    looks=4,
    steady_looks=2,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("--limit", nargs="+", default=LIMITS, help="memory limits, a GPU type each")
    parser.add_argument("--load", choices=LOADS, default="documents", help="what is asked of the engine")
    parser.add_argument("--tiny", action="store_true", help="toy shapes on a CPU: shows that everything runs")
    parser.add_argument("--output", type=Path, help=f"JSON, merged limit by limit (default {DEFAULT.name})")
    parser.add_argument("--commit", help="what to record where there is no repository")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the output file and stop")
    options = parser.parse_args(arguments)
    console = Console(width=max(Console().width, 140))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    output = options.output or (Path(tempfile.gettempdir(), "tuning-tiny.json") if options.tiny else DEFAULT)
    if options.plot is not None:
        from benchmarks.tuning.plot import draw

        draw(load(output), options.plot)
        return 0
    prompt_tokens, on_gpu = LOADS[options.load]
    scale = TINY if options.tiny else replace(FULL, prompt_tokens=prompt_tokens)
    bench = Bench(scale, {}, console)
    run = environment(options.commit) | {"scale": bench.scale.name}
    failed = []
    try:
        for limit in ("none",) if options.tiny else options.limit:
            experiment = ON_CPU if options.tiny else replace(on_gpu, limit=limit)
            bench.deadline = Deadline(PART_SECONDS)
            try:
                measured = measure(bench, experiment)
            except Exception:
                traceback.print_exc()
                failed.append(limit)
                continue
            record = load(output)
            record["parts"][f"{options.load} {limit}"] = measured | {"run": run}
            save(output, record)
    finally:
        bench.close()
    console.print(table(load(output)))
    return 1 if failed else 0


def measure(bench: Bench, experiment: Experiment) -> dict[str, Any]:
    """The sweep, the tuned run from the start that is the same for all, and a second one from its profile."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dllm-tuning-") as name:
        folder = Path(name)
        fixed = []
        for tokens in experiment.fixed:
            fixed.append(serve_fixed(bench, experiment, tokens, folder))
            bench.say(f"fixed {tokens}: {fixed[-1]['tokens_per_second']:.0f} tok/s")
        story = serve_tuned(bench, experiment, folder, looks=experiment.looks)
        again = serve_tuned(bench, experiment, folder, looks=experiment.steady_looks, learned=story.tuning)
    best = max(row["tokens_per_second"] for row in fixed)
    tuned = story.rate(experiment.steady_looks)
    largest = fixed[-1]["tokens_per_second"]
    return {
        "seconds": time.monotonic() - began,
        "fixed": fixed,
        "tuned": story.rows,
        "tuned_out_of_memory": story.out_of_memory,
        "is_quiet": is_quiet(story, experiment.steady_looks),
        "learned_budget": story.tuning.state.setting.max_num_batched_tokens,
        "second": again.rows,
        "second_out_of_memory": again.out_of_memory,
        "tuned_tokens_per_second": tuned,
        "share_of_best": tuned / best if best else None,
        "over_largest": tuned / largest if largest else None,
        "second_looks": looks_until_final(again.rows),
    }


def looks_until_final(rows: Sequence[dict[str, Any]]) -> int:
    """How many looks pass before the settings are those of the last one."""
    settings = [(row["budget"], row["seqs"], row["pool_bytes"]) for row in rows]
    changed = [number for number, setting in enumerate(settings) if setting != settings[-1]]
    return changed[-1] + 1 if changed else 0


def table(record: dict[str, Any]) -> Table:
    """One row a limit."""
    found = Table(title="The controller against fixed token budgets")
    for name in (
        "load, limit",
        "fixed: tok/s by budget",
        "tuned tok/s",
        "of the best",
        "over the largest",
        "OOM",
    ):
        found.add_column(name)
    for limit, part in record["parts"].items():
        fixed = ", ".join(f"{row['tokens']}: {row['tokens_per_second']:.0f}" for row in part["fixed"])
        found.add_row(
            limit,
            fixed,
            f"{part['tuned_tokens_per_second']:.0f}",
            f"{part['share_of_best'] or 0:.1%} (at least {REACHES:.0%})",
            f"{part['over_largest']:.2f} x" if part["over_largest"] else "it does not run",
            f"{part['tuned_out_of_memory']} + {part['second_out_of_memory']}",
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
