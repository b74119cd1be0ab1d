"""``python -m benchmarks.cpu_limit``: answers of a server whose CPU is limited, with a thread for each CPU of
the limit, as it chooses, and with a thread for each of the machine's, as OpenMP would.

Makes a cgroup (version 2 or 1) of its own, as root, and removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

PERIOD = 100_000
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
REPEATS = 5
GONE_SECONDS = 10.0


@contextmanager
def limited(cpus: float) -> Iterator[Path]:
    """The file that takes in processes which may use so many CPUs; none of them may be left at the end."""
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").is_file()
    folder = Path("/sys/fs/cgroup" if version_2 else "/sys/fs/cgroup/cpu") / f"dllm-cpu-limit-{os.getpid()}"
    folder.mkdir()
    try:
        quota = round(cpus * PERIOD)
        if version_2:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
        yield folder / "cgroup.procs"
    finally:
        until = time.monotonic() + GONE_SECONDS
        while (folder / "cgroup.procs").read_text() and time.monotonic() < until:
            time.sleep(0.1)
        folder.rmdir()


def measure(cpus: float, threads: int | None) -> tuple[float, float]:
    """Seconds until it listens, and of the median answer. ``threads`` is what the user sets."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    flags = ("--host", "127.0.0.1", "--port", "0", "--device", "cpu", "--kv-pool-bytes", "256MiB")
    with limited(cpus) as members:
        begun = time.monotonic()
        server = subprocess.Popen(
            [sys.executable, "-m", "dllm_server.cli", "serve", *flags],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: members.write_text(str(os.getpid())),
        )
        try:
            url = listening(server)
            started = time.monotonic() - begun
            answers = [ask(url) for _ in range(REPEATS + 1)][1:]
        finally:
            server.terminate()
            server.wait()
    return started, statistics.median(answers)


def listening(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if '"listening"' in line:
            return str(json.loads(line)["url"])
    raise SystemExit("the server ended before it listened")


def ask(url: str) -> float:
    body = {"messages": [{"role": "user", "content": QUESTION}]}
    begun = time.monotonic()
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=300)
    answer.raise_for_status()
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu_limit", description=__doc__)
    parser.add_argument("--cpus", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="limits to measure")
    limits = parser.parse_args().cpus
    cores = len(os.sched_getaffinity(0))
    table = Table("limit in CPUs", "OMP_NUM_THREADS", "s until it listens", "s an answer (median of 5)")
    for cpus in limits:
        for threads in (None, cores):
            started, answer = measure(cpus, threads)
            table.add_row(str(cpus), str(threads or "unset"), f"{started:.1f}", f"{answer:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
