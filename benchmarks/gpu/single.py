"""One request alone: the time of a step is all that counts."""

from __future__ import annotations

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.figure import PartResult, Target
from benchmarks.gpu.limits import gemm_rates
from benchmarks.gpu.offline import measure
from benchmarks.gpu.scale import Case

TARGETS = {1: Target(3, 145, 155), 4: Target(3, 480)}
REPEATS = 3


def run(bench: Bench, result: PartResult) -> None:
    """The median of three after one to warm up; against the linear layers' time at one block of tokens."""
    block = bench.scale.block
    bench.engine()
    floor_seconds = block / gemm_rates(bench.weights(), [block])[block]
    result.data["linear_seconds"] = floor_seconds
    for quota in bench.scale.single_quotas:
        for retention_ratio in (0.5, 1.0):
            case = Case(1, quota, retention_ratio)
            name = f"alone-{quota}-{retention_ratio:g}-"
            measure(bench, case, f"{name}warm-up-")
            runs = [measure(bench, case, f"{name}{number}-") for number in range(REPEATS)]
            middle = sorted(runs, key=lambda entry: entry["tokens_per_second"])[REPEATS // 2]
            result.data.setdefault("cases", []).append(middle)
            label = f"one request, {quota} a step, r = {retention_ratio:g}"
            result.add(label, middle["tokens_per_second"], "tok/s", TARGETS.get(quota))
            share = floor_seconds * 1e3 / middle["milliseconds_per_step"]
            result.add(f"{label}: linear layers' share of a step", share, "share")
            bench.say(f"{label}: {middle['tokens_per_second']:.1f} tok/s")
