"""Counters of the engine since its process began."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from dllm_server.engine.accounts.step_times import StepTimes
from dllm_server.engine.requests.messages import StepHistogram, StepSums
from dllm_server.engine.schedule.batch import StepBatch

KINDS = ("refresh", "reuse", "mixed")
STEP_SECONDS_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, float("inf")]


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * len(STEP_SECONDS_BOUNDS))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(STEP_SECONDS_BOUNDS, seconds)] += 1
        self.total += seconds

    def message(self) -> StepHistogram:
        cumulative = [sum(self.counts[: index + 1]) for index in range(len(self.counts))]
        return StepHistogram(STEP_SECONDS_BOUNDS, cumulative, self.total)


@dataclass(slots=True)
class EngineStats:
    """``tokens`` counts query tokens by phase; ``forward_seconds`` is the part of the steps inside the
    forward pass and the head."""

    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("refresh", "reuse"), 0))
    oom: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*KINDS, "profile"), 0))
    step_seconds: dict[str, Histogram] = field(default_factory=lambda: {kind: Histogram() for kind in KINDS})
    step_times: StepTimes = field(default_factory=lambda: StepTimes(dict.fromkeys(KINDS, StepSums())))
    committed_tokens: int = 0
    cancelled: int = 0
    preemptions: int = 0
    refused: int = 0
    batch_fill: float = 0.0
    seconds: float = 0.0
    forward_seconds: float = 0.0
    logits_rows: int = 0

    def count_step(self, batch: StepBatch, budget: int, seconds: float, forward_seconds: float) -> None:
        self.steps[batch.kind] += 1
        self.tokens["refresh"] += batch.refresh_rows
        self.tokens["reuse"] += batch.rows - batch.refresh_rows
        self.step_seconds[batch.kind].observe(seconds)
        self.step_times.add(batch.kind, batch.rows, seconds)
        self.batch_fill = batch.rows / budget
        self.seconds += seconds
        self.forward_seconds += forward_seconds
        self.logits_rows = len(batch.head.row)
