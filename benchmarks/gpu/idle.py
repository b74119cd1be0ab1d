"""How long the GPU waits between kernels at saturation, by the profiler's timeline."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.pressure import Pressure
from benchmarks.gpu.session import Session
from benchmarks.gpu.timeline import COPIES, KERNEL, OPERATOR, busy_time, device_intervals, time_by_name

Step = Callable[[], None]
IDLE = Target(8, 0.10, 0.05, is_ceiling=True)


def run(bench: Bench, result: PartResult) -> None:
    """``idle_requests`` open all the time, the first ones past their first block."""
    scale = bench.scale
    for quota in scale.single_quotas:
        session = Session(bench.engine())
        load = Pressure(bench, session, f"idle-{quota}", scale.idle_requests, quota, 0.5)
        for _ in range(scale.block // quota + scale.idle_steps // 2):
            load.step()
        measure_idle(bench, load.step, f"{quota} a step", result, IDLE)
        session.abandon()


def measure_idle(bench: Bench, step: Step, name: str, result: PartResult, target: Target | None) -> None:
    """The same number of steps without and with the profiler, which itself delays launches: the share is an
    upper bound."""
    plain = _seconds(bench, step)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiled = _profile(bench, step, path)
        trace = json.loads(path.read_text())
    category = KERNEL if bench.is_cuda else OPERATOR
    kernels = busy_time(device_intervals(trace, (category,)))
    if not kernels.span:
        raise RuntimeError("the timeline holds no kernel")
    work = busy_time(device_intervals(trace, (category, *COPIES)))
    result.data[name] = {
        "span_microseconds": kernels.span,
        "idle_share": kernels.idle_share,
        "idle_share_with_copies": work.idle_share,
        "longest_gaps_microseconds": kernels.longest_gaps,
        "seconds_per_step": plain,
        "seconds_per_step_profiled": profiled,
        "kernels": time_by_name(trace, category),
    }
    note = f"a step took {plain * 1e3:.1f} ms, {profiled * 1e3:.1f} ms under the profiler"
    result.add(f"idle between kernels, {name}", kernels.idle_share, "share", target, note)
    bench.say(f"{name}: {plain * 1e3:.1f} ms a step, {profiled * 1e3:.1f} ms profiled")


def _seconds(bench: Bench, step: Step) -> float:
    """A step, over ``idle_steps`` steps."""
    bench.synchronize()
    started = time.monotonic()
    for _ in range(bench.scale.idle_steps):
        step()
    bench.synchronize()
    return (time.monotonic() - started) / bench.scale.idle_steps


def _profile(bench: Bench, step: Step, path: Path) -> float:
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if bench.is_cuda else activity.CPU]) as profile:
        seconds = _seconds(bench, step)
    profile.export_chrome_trace(str(path))
    return seconds
