"""``python -m benchmarks.gpu_kernels``: each kernel against its floor, after it proved correct.

Floors of the same run: the bare bf16 matrix product for the LM head, the measured copy bandwidth for what
reads memory. On a CPU the kernels run in Triton's interpreter at tiny shapes and the times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from dllm_server.cpus import usable_cpus
from rich.console import Console
from rich.table import Table

from benchmarks.interpreter import interpret_kernels
from benchmarks.kernel_timing import Timing

RESULT = Path(__file__).parent / "results" / "gpu_kernels.json"
HAS_GPU = torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_kernels", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, and no search for tile shapes")
    parser.add_argument("--output", type=Path, default=RESULT, help=f"JSON file (default {RESULT.name})")
    parser.add_argument("--table", type=Path, default=None, help="file of measured tile shapes")
    arguments = parser.parse_args()
    if not HAS_GPU and (reason := interpret_kernels()):
        sys.exit(reason)
    from dllm_kernels.gpu import configurations
    from dllm_kernels.gpu.warm_up import warm_up

    from benchmarks import kernel_timings
    from benchmarks.kernel_checks import check_all

    console = Console(width=120)
    cases = kernel_timings.cases(is_quick=arguments.quick)
    device = cases.shape.device
    path = arguments.table or configurations.default_path()
    table = configurations.ConfigurationTable.load(path, configurations.device_name(device))
    checks = [
        check
        for shape, length, rows in (cases.small, cases.full)
        for check in check_all(shape, table, length, rows)
    ]
    for check in checks:
        state = "ok" if check.passes else "WRONG"
        console.print(
            f"{state:6} {check.name:45} {check.error:.2e} (limit {check.limit:.0e})", highlight=False
        )
    if not arguments.quick:
        warm_up(cases.shape, cases.sizes, table, cpus=usable_cpus())
        table.save(path, configurations.device_name(device))
    timings = list(kernel_timings.measure(cases, table))
    console.print(_table(timings))
    result = {
        "device": torch.cuda.get_device_name() if HAS_GPU else "cpu, interpreted",
        "torch": torch.__version__,
        "checks": [asdict(check) | {"passes": check.passes} for check in checks],
        "timings": [asdict(timing) | {"ratio": timing.ratio} for timing in timings],
        "configurations": {name: asdict(entry) for name, entry in sorted(table.entries.items())},
        "variants": table.variants,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if not all(check.passes for check in checks):
        sys.exit("a kernel is wrong: see the checks above")


def _table(timings: list[Timing]) -> Table:
    table = Table(title="kernels against their floors")
    for column in ("kernel", "size", "microseconds", "floor", "times the floor", "note"):
        table.add_column(column, justify="left" if column in ("kernel", "size", "note") else "right")
    for timing in timings:
        numbers = f"{timing.seconds * 1e6:.1f}", f"{timing.floor_seconds * 1e6:.1f}", f"{timing.ratio:.2f}"
        table.add_row(timing.kernel, timing.size, *numbers, timing.note)
    return table


if __name__ == "__main__":
    main()
