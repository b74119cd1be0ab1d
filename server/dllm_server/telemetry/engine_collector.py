"""The engine's newest snapshot as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dllm_server.engine.requests.messages import EngineSnapshot, StepHistogram
from dllm_server.metric import MetricFamily, Values, counter, gauge, histogram
from dllm_server.telemetry.tuning_collector import TUNING, WINDOW_FAMILIES, window_metrics

_SCHEDULE: tuple[tuple[MetricFamily, Callable[[EngineSnapshot], Values]], ...] = (
    (gauge("dllm_requests_running", "Requests that hold KV pages."), lambda now: now.requests_running),
    (gauge("dllm_requests_waiting", "Requests waiting for admission."), lambda now: now.requests_waiting),
    (counter("dllm_tokens", "Query tokens forwarded.", ("phase",)), lambda now: now.tokens_total),
    (counter("dllm_steps", "Steps by what their batch held.", ("phase",)), lambda now: now.steps_total),
    (
        counter("dllm_committed_tokens", "Tokens committed to canvases."),
        lambda now: now.committed_tokens_total,
    ),
    (
        gauge("dllm_batch_fill_ratio", "Query tokens of the last step / token budget.", unit="0 to 1"),
        lambda now: now.batch_fill,
    ),
    (
        gauge("dllm_token_budget", "Most query tokens a step, now.", unit="tokens"),
        lambda now: now.token_budget,
    ),
    (
        gauge("dllm_max_num_seqs", "Most requests in flight, now.", unit="requests"),
        lambda now: now.max_num_seqs,
    ),
    (
        gauge("dllm_max_num_logits", "Most rows projected at once, now.", unit="rows"),
        lambda now: now.max_num_logits,
    ),
    (
        gauge("dllm_max_model_len", "Most tokens of a prompt and its completion together.", unit="tokens"),
        lambda now: now.max_model_len,
    ),
    (
        counter(
            "dllm_engine_requests_cancelled",
            "Engine requests cancelled by the API, those a stop string ended included.",
        ),
        lambda now: now.cancelled_total,
    ),
    (
        counter(
            "dllm_requests_not_finite",
            "Requests, probes included, for which the model computed a NaN or an infinity.",
        ),
        lambda now: now.not_finite_total,
    ),
    (
        gauge("dllm_model_sound", "0 once requests in a row came out as no numbers, else 1."),
        lambda now: now.is_sound,
    ),
    (
        counter("dllm_engine_requests_refused", "Engine requests that can never fit."),
        lambda now: now.refused_total,
    ),
)
_MEMORY: tuple[tuple[MetricFamily, Callable[[EngineSnapshot], Values]], ...] = (
    (gauge("dllm_kv_pages", "KV pages by state.", ("state",)), lambda now: now.kv_pages),
    (
        gauge("dllm_memory_bytes", "Device memory in the last step, by owner.", ("owner",)),
        lambda now: now.memory_bytes,
    ),
    (
        gauge(
            "dllm_memory_peak_bytes", "Largest of a step so far, by owner; the least for free.", ("owner",)
        ),
        lambda now: now.memory_peak_bytes,
    ),
    (
        gauge("dllm_memory_predicted_bytes", "What the memory model predicted, by owner.", ("owner",)),
        lambda now: now.memory_predicted_bytes,
    ),
    (gauge("dllm_device_memory_bytes", "Memory of the device."), lambda now: now.device_memory_bytes),
    (
        counter("dllm_oom", "Out-of-memory errors contained, by phase.", ("phase",), unit="errors"),
        lambda now: now.oom_total,
    ),
)
_PREFIXES: tuple[tuple[MetricFamily, Callable[[EngineSnapshot], Values]], ...] = (
    *(
        (
            counter(f"dllm_prefix_cache_{name}_tokens", text),
            lambda now, name=name: now.prefix_tokens_total[name],
        )
        for name, text in (
            ("queried", "Prompt tokens looked up in the prefix cache."),
            ("hit", "Prompt tokens found in the prefix cache."),
            ("saved", "Tokens not computed again: hits, and what requests find that had given way."),
            ("evicted", "Tokens whose KV pages the prefix cache gave to others."),
        )
    ),
    (
        gauge(
            "dllm_prefix_cache_pages",
            "KV pages that hold prefixes and nobody's request: of the free ones.",
        ),
        lambda now: now.prefix_pages,
    ),
    (
        counter("dllm_preemptions", "Requests sent back to the queue for want of KV pages.", unit="requests"),
        lambda now: now.preemptions_total,
    ),
)
_STEP_SECONDS = histogram("dllm_step_seconds", "Time of a step by what its batch held.", ("phase",))
_MODEL = ("model_name",)
_VLLM: tuple[tuple[MetricFamily, Callable[[EngineSnapshot], float]], ...] = (
    (
        gauge("vllm:num_requests_running", "As dllm_requests_running.", _MODEL),
        lambda now: now.requests_running,
    ),
    (
        gauge("vllm:num_requests_waiting", "As dllm_requests_waiting.", _MODEL),
        lambda now: now.requests_waiting,
    ),
    (
        gauge("vllm:kv_cache_usage_perc", "Share of the KV pages in use.", _MODEL, unit="0 to 1"),
        lambda now: _usage(now),
    ),
    (
        gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", _MODEL, unit="0 to 1"),
        lambda now: _usage(now),
    ),
    (
        counter("vllm:prefix_cache_queries", "As dllm_prefix_cache_queried_tokens.", _MODEL, unit="tokens"),
        lambda now: now.prefix_tokens_total["queried"],
    ),
    (
        counter("vllm:prefix_cache_hits", "As dllm_prefix_cache_hit_tokens.", _MODEL, unit="tokens"),
        lambda now: now.prefix_tokens_total["hit"],
    ),
    (
        counter("vllm:prompt_tokens_cached", "As dllm_prefix_cache_hit_tokens.", _MODEL),
        lambda now: now.prefix_tokens_total["hit"],
    ),
    (
        counter("vllm:num_preemptions", "As dllm_preemptions.", _MODEL, unit="requests"),
        lambda now: now.preemptions_total,
    ),
)
_CACHE_CONFIG = gauge(
    "vllm:cache_config_info",
    "KV page size and number of pages.",
    ("model_name", "block_size", "num_gpu_blocks"),
)
ENGINE_FAMILIES = (
    *(family for family, _ in (*_SCHEDULE, *_MEMORY, *_PREFIXES)),
    _STEP_SECONDS,
    *(family for family, _ in TUNING),
    *WINDOW_FAMILIES,
    *(family for family, _ in _VLLM),
    _CACHE_CONFIG,
)


class EngineCollector(Collector):
    """Reads a snapshot that is already in this process: a scrape asks nothing of the engine or the device.

    Before the first snapshot there are no engine metrics.
    """

    def __init__(self, newest: Callable[[], EngineSnapshot | None], model_name: str) -> None:
        self._newest = newest
        self._model_name = model_name

    def collect(self) -> Iterator[Metric]:
        snapshot = self._newest()
        if snapshot is None:
            return
        for family, read in (*_SCHEDULE, *_MEMORY, *_PREFIXES, *TUNING):
            yield family.of(read(snapshot))
        yield _step_seconds(snapshot.step_seconds)
        yield from window_metrics(snapshot.windows)
        for family, read_one in _VLLM:
            yield family.of({self._model_name: read_one(snapshot)})
        pages = str(sum(snapshot.kv_pages.values()))
        yield _CACHE_CONFIG.of({(self._model_name, str(snapshot.page_size), pages): 1})


def _usage(snapshot: EngineSnapshot) -> float:
    pages = sum(snapshot.kv_pages.values())
    return snapshot.kv_pages.get("used", 0) / pages if pages else 0.0


def _step_seconds(histograms: Mapping[str, StepHistogram]) -> Metric:
    family = HistogramMetricFamily(_STEP_SECONDS.name, _STEP_SECONDS.text, labels=_STEP_SECONDS.labels)
    for phase, measured in histograms.items():
        bounds = [_bound(bound) for bound in measured.bounds]
        family.add_metric([phase], list(zip(bounds, measured.counts, strict=True)), measured.total_seconds)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)
