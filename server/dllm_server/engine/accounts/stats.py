"""Counters of the engine since its process began."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dllm_server.engine.accounts.step_times import StepTimes
from dllm_server.engine.requests.messages import StepHistogram, StepSample, StepSums
from dllm_server.engine.requests.request import Phase
from dllm_server.engine.schedule.batch import StepBatch

MIXED = "mixed"
RECENT_STEPS = 64
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


def step_kind(phases: Iterable[Phase]) -> str:
    """The phase that all requests of a step are in, or mixed."""
    several = {str(phase) for phase in phases}
    return several.pop() if len(several) == 1 else MIXED


@dataclass(slots=True)
class EngineStats:
    """``phases`` are those that the model's requests go through; steps are counted by ``step_kind``, and
    ``tokens`` counts query tokens by phase; the last steps are kept. ``forward_seconds`` is the part of the
    steps inside the forward pass and the head."""

    phases: tuple[Phase, Phase]
    steps: dict[str, int] = field(init=False)
    tokens: dict[str, int] = field(init=False)
    oom: dict[str, int] = field(init=False)
    step_seconds: dict[str, Histogram] = field(init=False)
    step_times: StepTimes = field(init=False)
    recent: deque[StepSample] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    committed_tokens: int = 0
    cancelled: int = 0
    preemptions: int = 0
    refused: int = 0
    batch_fill: float = 0.0
    seconds: float = 0.0
    forward_seconds: float = 0.0
    logits_rows: int = 0
    _sampled_tokens: int = 0

    def __post_init__(self) -> None:
        phases = [str(phase) for phase in self.phases]
        kinds = [*phases, MIXED]
        self.steps, self.tokens = dict.fromkeys(kinds, 0), dict.fromkeys(phases, 0)
        self.oom = dict.fromkeys((*kinds, "profile"), 0)
        self.step_seconds = {kind: Histogram() for kind in kinds}
        self.step_times = StepTimes(dict.fromkeys(kinds, StepSums()))

    def count_step(
        self,
        batch: StepBatch,
        phases: Sequence[Phase],
        budget: int,
        seconds: float,
        forward_seconds: float,
    ) -> None:
        """``phases`` of the batch's requests, in its order."""
        kind = step_kind(phases)
        self.steps[kind] += 1
        tokens = dict.fromkeys(self.tokens, 0)
        for phase, rows in zip(phases, batch.lengths.tolist(), strict=True):
            tokens[phase] += rows
        for name, rows in tokens.items():
            self.tokens[name] += rows
        self.step_seconds[kind].observe(seconds)
        self.step_times.add(kind, batch.rows, seconds)
        self.batch_fill = batch.rows / budget
        self.seconds += seconds
        self.forward_seconds += forward_seconds
        self.logits_rows = len(batch.head.row)
        requests = {str(phase): count for phase, count in Counter(phases).items()}
        committed = self.committed_tokens - self._sampled_tokens
        self._sampled_tokens = self.committed_tokens
        number = sum(self.steps.values())
        self.recent.append(StepSample(number, tokens, requests, budget, committed, seconds))
