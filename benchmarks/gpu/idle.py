"""How long the GPU waits between kernels at saturation, by the profiler's timeline."""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.offline import random_request
from benchmarks.gpu.session import Session
from benchmarks.gpu.timeline import COPIES, KERNEL, busy_time, device_intervals, time_by_kernel

IDLE = Target(8, 0.10, 0.05, is_ceiling=True)


def run(bench: Bench, result: PartResult) -> None:
    """``idle_requests`` in flight, past their first block; the same number of steps without and with the
    profiler, which itself delays launches: the share is an upper bound."""
    scale = bench.scale
    rng = random.Random(3)
    for quota in scale.single_quotas:
        session = Session(bench.engine())
        for index in range(scale.idle_requests):
            session.submit(random_request(bench, rng, f"idle-{quota}-{index}", quota, 0.5))
        for _ in range(scale.block // quota + scale.idle_steps // 2):
            session.step()
        plain = _steps(bench, session)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            profiled = _profile(bench, session, path)
            trace = json.loads(path.read_text())
        session.abandon()
        _report(quota, trace, plain, profiled, result)
        bench.say(f"{quota} a step: {plain * 1e3:.1f} ms a step, {profiled * 1e3:.1f} ms profiled")


def _steps(bench: Bench, session: Session) -> float:
    """Seconds a step over ``idle_steps`` steps."""
    bench.synchronize()
    started = session.now
    for _ in range(bench.scale.idle_steps):
        session.step()
    bench.synchronize()
    return (session.now - started) / bench.scale.idle_steps


def _profile(bench: Bench, session: Session, path: Path) -> float:
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA if bench.is_cuda else activity.CPU]) as profile:
        seconds = _steps(bench, session)
    profile.export_chrome_trace(str(path))
    return seconds


def _report(quota: int, trace: dict[str, Any], plain: float, profiled: float, result: PartResult) -> None:
    kernels = busy_time(device_intervals(trace))
    work = busy_time(device_intervals(trace, (KERNEL, *COPIES)))
    result.data[f"quota-{quota}"] = {
        "span_microseconds": kernels.span,
        "idle_share": kernels.idle_share,
        "idle_share_with_copies": work.idle_share,
        "longest_gaps_microseconds": kernels.longest_gaps,
        "seconds_per_step": plain,
        "seconds_per_step_profiled": profiled,
        "kernels": time_by_kernel(trace),
    }
    if not kernels.span:
        raise RuntimeError("the timeline holds no kernel: nothing ran on a GPU")
    note = f"a step took {plain * 1e3:.1f} ms, {profiled * 1e3:.1f} ms under the profiler"
    name = f"idle between kernels, {quota} a step"
    result.add(name, kernels.idle_share, "share", IDLE, note)
