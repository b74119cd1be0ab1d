"""The clients' figures beside the server's own counters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dllm_server.load.comparison import divided
from dllm_server.load.outcome import Outcome
from dllm_server.load.server_counters import ServerCounters, Timing


@dataclass(frozen=True, slots=True)
class Agreement:
    """One figure as clients saw it and as the server counted it; seconds are means. Clients' seconds here
    count from when they sent, as a server cannot know when they should have."""

    name: str
    clients: float
    server: float
    is_seconds: bool = False

    @property
    def difference(self) -> float:
        """Of the clients' from the server's, as a share; of seconds it is the way between them."""
        return 0.0 if self.clients == self.server else divided(self.clients - self.server, self.server)


def agreements(outcomes: Sequence[Outcome], counted: ServerCounters) -> list[Agreement]:
    """Answered requests, tokens, and seconds of those whose seconds both have."""
    answered = [outcome for outcome in outcomes if outcome.error is None]
    found = [Agreement("requests answered", len(answered), counted.requests.get("success", 0.0))]
    failed = sum(value for name, value in counted.requests.items() if name != "success")
    if set(counted.requests) > {"success"}:
        found.append(Agreement("requests failed", len(outcomes) - len(answered), failed))
    if all(outcome.prompt_tokens is not None for outcome in answered):
        prompts = sum(outcome.prompt_tokens or 0 for outcome in answered)
        found.append(Agreement("prompt tokens", prompts, counted.prompt_tokens))
    if all(outcome.completion_tokens is not None for outcome in answered):
        generated = sum(outcome.completion_tokens or 0 for outcome in answered)
        found.append(Agreement("generated tokens", generated, counted.completion_tokens))
    return found + [
        Agreement(name, mean, timing.mean, is_seconds=True)
        for name, mean, timing in _timings(answered, counted)
        if not math.isnan(mean) and timing.count
    ]


def _timings(answered: Sequence[Outcome], counted: ServerCounters) -> Iterable[tuple[str, float, Timing]]:
    waits = [outcome.queue_seconds for outcome in answered if outcome.queue_seconds is not None]
    # A server counts an empty answer's first block too: the one that it ended in.
    firsts = [[*outcome.blocks, outcome.ended][0] - outcome.sent for outcome in answered]
    ends = [outcome.ended - outcome.sent for outcome in answered]
    yield "queue", _mean(waits), counted.queue
    yield "first block", _mean(firsts), counted.first
    yield "end to end", _mean(ends), counted.end


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
