"""One run of a system under arrivals, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.arrivals import BURST_SHAPE, PROFILES, Arrival, arrivals
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.bins import MOST_SAMPLES, binned
from benchmarks.gpu.figure import PartResult
from benchmarks.gpu.latency import Latencies, latencies
from benchmarks.gpu.session import Sample, Session

RETENTION_RATIO = 0.5
SEED = 29


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

    def report(self, result: PartResult, note: str = "") -> None:
        fields = ("p50", "p95", "p99", "first_block_p50", "first_block_p95", "first_block_p99")
        for field in fields if self.system == "static" else (*fields, "gap_p50", "gap_p99", "gap_max"):
            result.add(f"{self.name}: {field}", getattr(self.found, field), "s", note=note)


def make_arrivals(
    bench: Bench, profile: str, process: str, phases: Sequence[tuple[float, float]]
) -> list[Arrival]:
    """The same for every system: ``process`` is poisson or bursty."""
    shape = BURST_SHAPE if process == "bursty" else 1.0
    vocabulary = bench.scale.model["vocab_size"]
    return arrivals(phases, PROFILES[profile], vocabulary, shape=shape, seed=SEED)


def serve(
    bench: Bench,
    coming: Sequence[Arrival],
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
                ignore_eos=True,
            ),
        )
        for index, arrival in enumerate(coming)
    ]
    session.replay(requests, (coming[-1].seconds if coming else 0.0) + load.drain_seconds)
    cut = session.now
    found = latencies(session.served.values(), cut)
    tokens = sum(sample.committed_tokens for sample in session.samples)
    samples = session.samples[:]
    session.abandon()
    bench.say(f"{name}: p50 {found.p50:.2f} s, p99 {found.p99:.2f} s of {found.requests}")
    return LoadRun(name, "engine", profile, process, share, saturated, cut, found, tokens, samples)
