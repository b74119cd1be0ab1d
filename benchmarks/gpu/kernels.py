"""Kernels: first that they are right, then how far from their floors they are."""

from __future__ import annotations

import re
from dataclasses import asdict

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.kernel_timing import Timing

CORRECT = Target(1, 1.0)
HEAD_AT_MOST = Target(4, 1.15, 1.10, is_ceiling=True)
HEAD_BELOW = Target(4, 1.20, is_ceiling=True)
HEAD_MIB = Target(4, 64.0, is_ceiling=True)
REUSE = Target(5, 0.70)
MOST_ROWS = 2048


def run(bench: Bench, result: PartResult) -> None:
    """The checks and timings of ``benchmarks.gpu_kernels``; tile shapes that nobody has measured on this
    device are measured first."""
    from dllm_kernels.gpu.configurations import ConfigurationTable, default_path, device_name
    from dllm_kernels.gpu.warm_up import warm_up
    from dllm_server.cpus import usable_cpus

    from benchmarks.kernel_checks import check_all
    from benchmarks.kernel_timings import cases as kernel_cases
    from benchmarks.kernel_timings import measure

    bench.release()
    cases = kernel_cases(is_quick=bench.scale.name != "full")
    path, device = default_path(), device_name(cases.shape.device)
    table = ConfigurationTable.load(path, device) if bench.is_cuda else ConfigurationTable()
    if bench.is_cuda:
        known = len(table.entries)
        warm_up(cases.shape, cases.sizes, table, cpus=usable_cpus())
        table.save(path, device)
        bench.say(f"{len(table.entries) - known} tile shapes measured, {known} known before")
    checks = [
        check
        for shape, length, rows in (cases.small, cases.full)
        for check in check_all(shape, table, length, rows)
    ]
    passing = [check.passes for check in checks]
    result.data["checks"] = [asdict(check) | {"passes": check.passes} for check in checks]
    result.add("checks that pass", sum(passing) / len(passing), "share", CORRECT, f"{len(passing)} checks")
    for check in checks:
        if not check.passes:
            bench.say(f"WRONG: {check.name}: {check.error:.2e}, limit {check.limit:.0e}")
    timings = result.data.setdefault("timings", [])
    for timing in measure(cases, table):
        timings.append(asdict(timing) | {"ratio": timing.ratio})
        _report(timing, result)
        bench.check_time(f"{len(timings)} timings")


def _report(timing: Timing, result: PartResult) -> None:
    from benchmarks.kernel_timings import HEAD, PAGED, SERVED

    if timing.kernel == f"{HEAD} {SERVED} greedy":
        rows = int(re.findall(r"\d+", timing.size)[0])
        target = HEAD_AT_MOST if rows >= MOST_ROWS else HEAD_BELOW
        result.add(f"lm_head, {timing.size}", timing.ratio, "times the bare GEMM", target)
        if rows >= MOST_ROWS and timing.peak_mib is not None:
            result.add(f"lm_head, {timing.size}: above its inputs", timing.peak_mib, "MiB", HEAD_MIB)
    elif timing.kernel == PAGED:
        share = 1 / timing.ratio if timing.ratio else 0.0
        is_judged = timing.size.startswith("64 x")
        result.add(
            f"reuse attention, {timing.size}: of the copy bandwidth",
            share,
            "share",
            REUSE if is_judged else None,
        )
