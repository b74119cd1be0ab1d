"""What a server counts of the requests that it was sent, from its ``/metrics``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

# Ours, or what vLLM and SGLang call the same. The first that a server has counts.
_ANSWERED = ("dllm_requests_total", "vllm:request_success_total", "sglang:num_requests_total")
_PROMPT_TOKENS = ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total")
_COMPLETION_TOKENS = ("vllm:generation_tokens_total", "sglang:generation_tokens_total")
_QUEUE = ("dllm_queue_seconds", "vllm:request_queue_time_seconds", "sglang:queue_time_seconds")
_FIRST = (
    "dllm_first_block_seconds",
    "vllm:time_to_first_token_seconds",
    "sglang:time_to_first_token_seconds",
)
_END = ("dllm_e2e_seconds", "vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds")


@dataclass(frozen=True, slots=True)
class Timing:
    """A histogram's count and sum, which give its mean exactly."""

    count: float = 0.0
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        return self.seconds / self.count if self.count else math.nan


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """Requests by outcome; ``success`` alone where a server counts nothing else."""

    requests: Mapping[str, float] = field(default_factory=dict)
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    queue: Timing = Timing()
    first: Timing = Timing()
    end: Timing = Timing()

    def since(self, before: ServerCounters) -> ServerCounters:
        """What came between two readings."""
        return self._with(before, -1.0)

    def plus(self, other: ServerCounters) -> ServerCounters:
        return self._with(other, 1.0)

    def _with(self, other: ServerCounters, sign: float) -> ServerCounters:
        def timing(ours: Timing, theirs: Timing) -> Timing:
            return Timing(ours.count + sign * theirs.count, ours.seconds + sign * theirs.seconds)

        names = [*self.requests, *(name for name in other.requests if name not in self.requests)]
        return ServerCounters(
            {name: self.requests.get(name, 0.0) + sign * other.requests.get(name, 0.0) for name in names},
            self.prompt_tokens + sign * other.prompt_tokens,
            self.completion_tokens + sign * other.completion_tokens,
            timing(self.queue, other.queue),
            timing(self.first, other.first),
            timing(self.end, other.end),
        )


def read_counters(texts: Iterable[str]) -> ServerCounters | None:
    """Of all servers whose metrics these are together; None where one has none of the known names."""
    whole = ServerCounters()
    for text in texts:
        values: dict[str, float] = defaultdict(float)
        outcomes: dict[str, float] = {}
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:  # not metrics
            return None
        for family in families:
            for sample in family.samples:
                values[sample.name] += sample.value
                if sample.name == _ANSWERED[0]:
                    outcomes[sample.labels["status"]] = sample.value
        if not any(name in values for name in _ANSWERED):
            return None
        whole = whole.plus(
            ServerCounters(
                outcomes or {"success": _first(values, _ANSWERED)},
                _first(values, _PROMPT_TOKENS),
                _first(values, _COMPLETION_TOKENS),
                *(
                    Timing(
                        _first(values, [f"{name}_count" for name in names]),
                        _first(values, [f"{name}_sum" for name in names]),
                    )
                    for names in (_QUEUE, _FIRST, _END)
                ),
            )
        )
    return whole


def _first(values: Mapping[str, float], names: Iterable[str]) -> float:
    return next((values[name] for name in names if name in values), 0.0)
