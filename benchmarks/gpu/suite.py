"""Runs parts one after the other: each within its time, its result on disk before the next begins."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import (
    agreement,
    exact,
    experts,
    grammars,
    idle,
    kernels,
    limits,
    memory_cap,
    offline,
    open_loop,
    prefixes,
    prompts,
    single,
)
from benchmarks.gpu.bench import Bench, Deadline
from benchmarks.gpu.figure import PartResult
from benchmarks.gpu.record import entry, load, merge, save

GRACE_SECONDS = 60.0  # beyond a part's limit, for the call that it is in
EXIT_HUNG = 4

Part = Callable[[Bench, PartResult], None]
PARTS: dict[str, tuple[Part, float]] = {
    "kernels": (kernels.run, 450.0),
    "experts": (experts.run, 200.0),
    "agreement": (agreement.run, 400.0),
    "limits": (limits.run, 200.0),
    "offline": (offline.run, 500.0),
    "single": (single.run, 300.0),
    "prompts": (prompts.run, 300.0),
    "idle": (idle.run, 300.0),
    "open-loop": (open_loop.run, 500.0),
    "memory": (memory_cap.run, 500.0),
    "exact": (exact.run, 400.0),
    "prefixes": (prefixes.run, 300.0),
    "grammars": (grammars.run, 200.0),
}
"""Each part's function and its seconds, in the order of a run: what is correct first, then how fast."""


def run_parts(bench: Bench, names: Sequence[str], output: Path, run: dict[str, Any]) -> list[str]:
    """The parts that failed."""
    failed = []
    for number, name in enumerate(names):
        part, seconds = PARTS[name]
        bench.deadline = Deadline(seconds)
        bench.say(f"part {name} ({number + 1} of {len(names)})")
        result = PartResult()
        watchdog = _watch(bench, name, result, output, run)
        error = ""
        try:
            part(bench, result)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            failed.append(name)
            traceback.print_exc()
        finally:
            watchdog.cancel()
        _write(output, name, entry(result, bench.deadline.elapsed, run, error))
        bench.say(f"part {name} {'failed: ' + error if error else 'done'}")
        if error:
            bench.release()
    return failed


def _watch(bench: Bench, name: str, result: PartResult, output: Path, run: dict[str, Any]) -> threading.Timer:
    """A part that does not come back ends the process; what it measured is kept."""

    def give_up() -> None:
        error = f"hung: no end {GRACE_SECONDS:g} s after its limit of {bench.deadline.seconds:g} s"
        _write(output, name, entry(result, bench.deadline.elapsed, run, error))
        bench.say(f"part {name} {error}")
        os._exit(EXIT_HUNG)

    timer = threading.Timer(bench.deadline.seconds + GRACE_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    return timer


def _write(output: Path, name: str, measured: dict[str, Any]) -> None:
    save(output, merge(load(output), name, measured))
