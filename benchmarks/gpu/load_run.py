"""One run of a system under arrivals, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_server.load.arrivals import BURST_SHAPE, Arrival
from dllm_server.load.lengths import PROFILES

from benchmarks.gpu.arrivals import job_arrivals
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.bins import MOST_SAMPLES, binned
from benchmarks.gpu.figure import PartResult
from benchmarks.gpu.latency import Latencies, latencies
from benchmarks.gpu.session import Sample, Session
from benchmarks.job import Job

RETENTION_RATIO = 0.5
SEED = 29
WHOLE = ("p50", "p95", "p99", "first_block_p50", "first_block_p95", "first_block_p99")
BY_BLOCK = ("first_block_max", "gap_p50", "gap_p99", "gap_max")  # a static batch publishes its blocks at once


@dataclass(frozen=True, slots=True)
class LoadRun:
    """``share``: of the saturation, which is ``saturated`` requests a second. ``cut``: seconds it took."""

    name: str
    system: str
    profile: str
    process: str
    share: float
    saturated: float
    cut: float
    found: Latencies
    tokens: int
    samples: Sequence[Sample] = ()

    @property
    def bound(self) -> str:
        """What the cut makes of the percentiles; empty where no request was open."""
        if not self.found.open_requests:
            return ""
        still_open = f"{self.found.open_requests} of {self.found.requests}"
        return f"lower bound: {still_open} still open after {self.cut:.0f} s"

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "system": self.system,
            "profile": self.profile,
            "process": self.process,
            "share": self.share,
            "offered_requests_per_second": self.share * self.saturated,
            "seconds": self.cut,
            "tokens": self.tokens,
            "latencies": self.found.record(),
            "composition": binned(self.samples, MOST_SAMPLES),
        }

    def report(self, result: PartResult) -> None:
        fields = WHOLE if self.system == "static" else (*WHOLE, *BY_BLOCK)
        for field in fields:
            result.add(f"{self.name}: {field}", getattr(self.found, field), "s", note=self.bound)


def make_arrivals(
    bench: Bench, profile: str, process: str, phases: Sequence[tuple[float, float]]
) -> list[Arrival[Job]]:
    """The same for every system: ``process`` is poisson or bursty."""
    shape = BURST_SHAPE if process == "bursty" else 1.0
    vocabulary = bench.scale.model["vocab_size"]
    return job_arrivals(phases, PROFILES[profile], vocabulary, shape=shape, seed=SEED)


def serve(
    bench: Bench,
    coming: Sequence[Arrival[Job]],
    *,
    name: str,
    profile: str,
    process: str,
    share: float,
    saturated: float,
) -> LoadRun:
    """The engine under arrivals until all are done, or ``drain_seconds`` after the last; it is empty then."""
    load, session = bench.scale.open_loop, Session(bench.engine())
    requests = [
        (
            arrival.seconds,
            arrival.job.request(
                f"{name}-{index}",
                load.quota,
                block=bench.scale.block,
                retention_ratio=RETENTION_RATIO,
            ),
        )
        for index, arrival in enumerate(coming)
    ]
    session.replay(requests, (coming[-1].seconds if coming else 0.0) + load.drain_seconds)
    cut = session.now
    samples = session.samples[:]
    found = latencies(session.served.values(), cut, [sample.step_seconds for sample in samples])
    tokens = sum(sample.committed_tokens for sample in samples)
    session.abandon()
    bench.say(
        f"{name}: p50 {found.p50:.2f} s, p99 {found.p99:.2f} s of {found.requests}, "
        f"p99 of gaps {found.gap_p99:.3f} s, of steps {found.step_p99:.3f} s"
    )
    return LoadRun(name, "engine", profile, process, share, saturated, cut, found, tokens, samples)
