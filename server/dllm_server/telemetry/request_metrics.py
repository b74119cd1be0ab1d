"""What the API counts of the requests that pass through it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from dllm_server.metric import counter, histogram
from dllm_server.telemetry.recent_times import RecentTimes

SHORT_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0)

OUTCOMES = ("success", "invalid", "refused", "cancelled", "timeout", "unavailable", "error")


_MODEL = ("model_name",)
_HTTP_REQUESTS = counter(
    "dllm_requests",
    "HTTP requests for a completion by outcome: invalid is any 4xx but 429, which is refused.",
    ("status",),
)
_CANCELLED = counter("dllm_requests_cancelled", "HTTP requests whose client left before the answer.")
_REFUSED = counter("dllm_requests_refused", "HTTP requests refused because the queue was full.")
_QUEUE_SECONDS = histogram(
    "dllm_queue_seconds",
    "Time from the engine's receipt of a request to its admission, told with its first block.",
)
_FIRST_BLOCK_SECONDS = histogram(
    "dllm_first_block_seconds",
    "Time from a request's last byte to its first block; of an answer that ends at once, to its end.",
)
_E2E_SECONDS = histogram(
    "dllm_e2e_seconds", "Time from a request's last byte to the end of a choice that was answered."
)
_TIME_TO_FIRST_TOKEN = histogram(
    "vllm:time_to_first_token_seconds",
    "Time to the first committed block: a diffusion model commits tokens in blocks. "
    "As dllm_first_block_seconds.",
    _MODEL,
)
_E2E_LATENCY = histogram("vllm:e2e_request_latency_seconds", "As dllm_e2e_seconds.", _MODEL)
_PROMPT_TOKENS = counter("vllm:prompt_tokens", "Prompt tokens sent to the engine.", _MODEL)
_GENERATION_TOKENS = counter(
    "vllm:generation_tokens", "Generated tokens before EOS or a stop string's end.", _MODEL
)
_SUCCESS = counter(
    "vllm:request_success", "Finished choices by reason.", ("model_name", "finished_reason"), unit="choices"
)
REQUEST_FAMILIES = (
    _HTTP_REQUESTS,
    _CANCELLED,
    _REFUSED,
    _QUEUE_SECONDS,
    _FIRST_BLOCK_SECONDS,
    _E2E_SECONDS,
    _TIME_TO_FIRST_TOKEN,
    _E2E_LATENCY,
    _PROMPT_TOKENS,
    _GENERATION_TOKENS,
    _SUCCESS,
)


class RequestMetrics:
    """Counters and histograms of engine requests (one a choice) and of HTTP requests that ask for a
    generation.

    The ``vllm:`` names repeat the ``dllm_`` ones for dashboards, autoscalers and endpoint pickers that know
    only those.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        self._model_name = model_name
        self.recent = RecentTimes()
        self._http_requests = _HTTP_REQUESTS.counter(registry)
        self._cancelled = _CANCELLED.counter(registry)
        self._refused = _REFUSED.counter(registry)
        for outcome in OUTCOMES:
            self._http_requests.labels(outcome)  # a rate needs the zero before the first one
        self._queue_seconds = _QUEUE_SECONDS.histogram(registry, SHORT_SECONDS)
        self._first_block_seconds = _FIRST_BLOCK_SECONDS.histogram(registry, SHORT_SECONDS)
        self._e2e_seconds = _E2E_SECONDS.histogram(registry, LONG_SECONDS)
        self._time_to_first_token = _TIME_TO_FIRST_TOKEN.histogram(registry, SHORT_SECONDS).labels(model_name)
        self._e2e_latency = _E2E_LATENCY.histogram(registry, LONG_SECONDS).labels(model_name)
        self._prompt_tokens = _PROMPT_TOKENS.counter(registry).labels(model_name)
        self._generation_tokens = _GENERATION_TOKENS.counter(registry).labels(model_name)
        self._success = _SUCCESS.counter(registry)
        for reason in ("stop", "length"):
            self._success.labels(model_name, reason)

    def submitted(self, prompt_tokens: int) -> None:
        self._prompt_tokens.inc(prompt_tokens)

    def first_block(self, elapsed_seconds: float, queue_seconds: float) -> None:
        self.recent.queue.append(queue_seconds)
        self.recent.first_block.append(elapsed_seconds)
        self._queue_seconds.observe(queue_seconds)
        self._first_block_seconds.observe(elapsed_seconds)
        self._time_to_first_token.observe(elapsed_seconds)

    def generated(self, tokens: int) -> None:
        self._generation_tokens.inc(tokens)

    def finished(self, reason: str, elapsed_seconds: float) -> None:
        self.recent.end_to_end.append(elapsed_seconds)
        self._e2e_seconds.observe(elapsed_seconds)
        self._e2e_latency.observe(elapsed_seconds)
        self._success.labels(self._model_name, reason).inc()

    def answered(self, outcome: str) -> None:
        """Count an HTTP request that asked for a generation, by one of ``OUTCOMES``."""
        self._http_requests.labels(outcome).inc()
        if outcome == "cancelled":
            self._cancelled.inc()
        elif outcome == "refused":
            self._refused.inc()


def outcome_of(status: int) -> str:
    """The outcome that an HTTP status stands for."""
    match status:
        case 429:
            return "refused"
        case 499:
            return "cancelled"
        case 503:
            return "unavailable"
        case 504:
            return "timeout"
        case _ if status < 400:
            return "success"
        case _ if status < 500:
            return "invalid"
        case _:
            return "error"
