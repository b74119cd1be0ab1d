"""``python -m benchmarks.cpu``: the engine against research-style decoding on a CPU, and the engine's own
time a step."""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
import torch
from dllm_server.engine.engine import Engine
from dllm_server.engine.process.offline import complete
from dllm_server.engine.process.startup import start
from dllm_server.engine.requests.messages import Generate
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import EngineSettings
from rich.console import Console
from rich.table import Table

from benchmarks.baselines import decode_static_batch, decode_without_cache
from benchmarks.job import BLOCK, Job
from benchmarks.workload import mixed_jobs

RESULT = Path(__file__).parent / "results" / "cpu.json"


@dataclass(frozen=True, slots=True)
class Timing:
    """One system's time for the whole load. ``tokens`` counts what was generated up to EOS, by the engine's
    answers."""

    system: str
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True, slots=True)
class Overhead:
    """The engine's own milliseconds a step (schedule, batch, commit), outside the forward pass and the
    head."""

    requests: int
    steps: int
    own_milliseconds: float
    forward_milliseconds: float


def requests_of(
    jobs: Sequence[Job], quota: int, *, stop_token_ids: Sequence[int] = (), name: str = ""
) -> list[Generate]:
    return [
        job.request(f"{name}{index}", quota, stop_token_ids=stop_token_ids) for index, job in enumerate(jobs)
    ]


def timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(engine: Engine, jobs: Sequence[Job], quota: int, batch: int) -> list[Timing]:
    """The same load through all systems, each warmed up by one short job."""
    model = engine.runner.model
    warm_up = [Job(jobs[0].prompt, BLOCK)]
    decode_without_cache(model, warm_up[0], BLOCK)
    decode_static_batch(model, warm_up, BLOCK)
    complete(engine, requests_of(warm_up, BLOCK, name="warm-up-"))
    requests = requests_of(jobs, quota, stop_token_ids=model.config.eos_token_ids)
    tokens = 0

    def run_engine() -> None:
        nonlocal tokens
        tokens = sum(len(completion.token_ids) for completion in complete(engine, requests))

    engine_seconds = timed(run_engine)
    full_seconds = timed(lambda: complete(engine, requests_of(jobs, quota)))
    batches = [jobs[index : index + batch] for index in range(0, len(jobs), batch)]
    static_seconds = timed(lambda: [decode_static_batch(model, part, quota) for part in batches])
    alone_seconds = timed(lambda: [decode_without_cache(model, job, quota) for job in jobs])
    return [
        Timing("(a) one at a time, no cache", alone_seconds, tokens),
        Timing(f"(b) static batch of {batch}, dual cache", static_seconds, tokens),
        Timing("(c) engine", engine_seconds, tokens),
        Timing("(c) engine, without early exit", full_seconds, tokens),
    ]


def overhead(engine: Engine, jobs: Sequence[Job], quota: int) -> Overhead:
    """Average over a run of ``jobs`` all submitted at once."""
    stats = engine.stats
    own, forward, steps = (
        stats.seconds - stats.forward_seconds,
        stats.forward_seconds,
        sum(stats.steps.values()),
    )
    complete(engine, requests_of(jobs, quota))
    count = sum(stats.steps.values()) - steps
    return Overhead(
        requests=len(jobs),
        steps=count,
        own_milliseconds=(stats.seconds - stats.forward_seconds - own) / count * 1e3,
        forward_milliseconds=(stats.forward_seconds - forward) / count * 1e3,
    )


def report(timings: Sequence[Timing], overheads: Sequence[Overhead]) -> None:
    console = Console(width=100)
    alone, static = timings[0].seconds, timings[1].seconds
    table = Table(title="32 mixed requests, embedded model")
    for column in ("system", "seconds", "tokens/s", "time of (a)", "time of (b)"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for entry in timings:
        row = f"{entry.seconds:.1f}", f"{entry.tokens_per_second:.1f}"
        table.add_row(entry.system, *row, f"{entry.seconds / alone:.2f}", f"{entry.seconds / static:.2f}")
    console.print(table)
    table = Table(title="the engine's own time a step")
    for column in ("requests", "steps", "own ms", "forward ms"):
        table.add_column(column, justify="right")
    for cost in overheads:
        own, forward = f"{cost.own_milliseconds:.2f}", f"{cost.forward_milliseconds:.1f}"
        table.add_row(str(cost.requests), str(cost.steps), own, forward)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    parser.add_argument("--requests", type=int, default=32, help="requests of the load (default 32)")
    parser.add_argument(
        "--quota", type=int, default=1, help="tokens committed a step by every system (default 1)"
    )
    parser.add_argument("--batch", type=int, default=8, help="size of the static batch (default 8)")
    parser.add_argument("--output", type=Path, default=RESULT, help=f"JSON file (default {RESULT.name})")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    tokenizer = load_tokenizer(EMBEDDED_DIRECTORY)
    engine = start(EngineSettings.model_validate({"device": "cpu", "dtype": "float32"})).engine
    timings = compare(engine, mixed_jobs(tokenizer, arguments.requests), arguments.quota, arguments.batch)
    short = [Job(job.prompt[:128], 64) for job in mixed_jobs(tokenizer, 64)]
    overheads = [overhead(engine, short[:count], 4) for count in (1, 16, 64)]
    report(timings, overheads)
    result = {
        "machine": {
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "arguments": {"requests": arguments.requests, "quota": arguments.quota, "batch": arguments.batch},
        "load": [asdict(entry) | {"tokens_per_second": entry.tokens_per_second} for entry in timings],
        "own_time_a_step": [asdict(cost) for cost in overheads],
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
