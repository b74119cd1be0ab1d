"""The engine's newest snapshot as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dllm_server.engine.requests.messages import EngineSnapshot, StepHistogram
from dllm_server.telemetry.tuning_collector import tuning_metrics, window_metrics

_PREFIX_TOKENS = {
    "queried": "Prompt tokens looked up in the prefix cache.",
    "hit": "Prompt tokens found in the prefix cache.",
    "saved": "Tokens not computed again: hits, and what requests find that had given way.",
    "evicted": "Tokens whose KV pages the prefix cache gave to others.",
}


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
        yield from _schedule(snapshot)
        yield from _memory(snapshot)
        yield from _prefixes(snapshot)
        yield from tuning_metrics(snapshot)
        yield from window_metrics(snapshot.windows)
        yield from self._vllm_aliases(snapshot)

    def _vllm_aliases(self, snapshot: EngineSnapshot) -> Iterator[Metric]:
        pages = sum(snapshot.kv_pages.values())
        usage = snapshot.kv_pages.get("used", 0) / pages if pages else 0.0
        values = (
            ("vllm:num_requests_running", "As dllm_requests_running.", snapshot.requests_running),
            ("vllm:num_requests_waiting", "As dllm_requests_waiting.", snapshot.requests_waiting),
            ("vllm:kv_cache_usage_perc", "Share of the KV pages in use, 0 to 1.", usage),
            ("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", usage),
        )
        for name, text, value in values:
            alias = GaugeMetricFamily(name, text, labels=["model_name"])
            alias.add_metric([self._model_name], value)
            yield alias
        tokens = snapshot.prefix_tokens_total
        counts = (
            ("vllm:prefix_cache_queries", "As dllm_prefix_cache_queried_tokens.", tokens["queried"]),
            ("vllm:prefix_cache_hits", "As dllm_prefix_cache_hit_tokens.", tokens["hit"]),
            ("vllm:prompt_tokens_cached", "As dllm_prefix_cache_hit_tokens.", tokens["hit"]),
            ("vllm:num_preemptions", "As dllm_preemptions.", snapshot.preemptions_total),
        )
        for name, text, count in counts:
            counter = CounterMetricFamily(name, text, labels=["model_name"])
            counter.add_metric([self._model_name], count)
            yield counter
        config = GaugeMetricFamily(
            "vllm:cache_config_info",
            "KV page size and number of pages.",
            labels=["model_name", "block_size", "num_gpu_blocks"],
        )
        config.add_metric([self._model_name, str(snapshot.page_size), str(pages)], 1)
        yield config


def _schedule(snapshot: EngineSnapshot) -> Iterator[Metric]:
    yield _gauge("dllm_requests_running", "Requests that hold KV pages.", snapshot.requests_running)
    yield _gauge("dllm_requests_waiting", "Requests waiting for admission.", snapshot.requests_waiting)
    yield _counters("dllm_tokens", "Query tokens forwarded.", "phase", snapshot.tokens_total)
    yield _counters("dllm_steps", "Steps by what their batch held.", "phase", snapshot.steps_total)
    yield _step_seconds(snapshot.step_seconds)
    yield _counter("dllm_committed_tokens", "Tokens committed to canvases.", snapshot.committed_tokens_total)
    yield _gauge(
        "dllm_batch_fill_ratio", "Query tokens of the last step / token budget.", snapshot.batch_fill
    )
    yield _gauge("dllm_token_budget", "Most query tokens a step, now.", snapshot.token_budget)
    yield _gauge("dllm_max_num_seqs", "Most requests in flight, now.", snapshot.max_num_seqs)
    yield _gauge("dllm_max_num_logits", "Most rows projected at once, now.", snapshot.max_num_logits)
    yield _gauge(
        "dllm_max_model_len", "Most tokens of a prompt and its completion together.", snapshot.max_model_len
    )
    yield _counter(
        "dllm_engine_requests_cancelled",
        "Engine requests cancelled by the API, those a stop string ended included.",
        snapshot.cancelled_total,
    )
    yield _counter(
        "dllm_requests_not_finite",
        "Requests, probes included, for which the model computed a NaN or an infinity.",
        snapshot.not_finite_total,
    )
    yield _gauge(
        "dllm_model_sound", "0 once requests in a row came out as no numbers, else 1.", snapshot.is_sound
    )
    yield _counter(
        "dllm_engine_requests_refused", "Engine requests that can never fit.", snapshot.refused_total
    )


def _prefixes(snapshot: EngineSnapshot) -> Iterator[Metric]:
    for name, text in _PREFIX_TOKENS.items():
        yield _counter(f"dllm_prefix_cache_{name}_tokens", text, snapshot.prefix_tokens_total[name])
    yield _gauge(
        "dllm_prefix_cache_pages",
        "KV pages that hold prefixes and nobody's request: of the free ones.",
        snapshot.prefix_pages,
    )
    yield _counter(
        "dllm_preemptions",
        "Requests sent back to the queue for want of KV pages.",
        snapshot.preemptions_total,
    )


def _memory(snapshot: EngineSnapshot) -> Iterator[Metric]:
    yield _gauges("dllm_kv_pages", "KV pages by state.", "state", snapshot.kv_pages)
    yield _gauges(
        "dllm_memory_bytes", "Device memory in the last step, by owner.", "owner", snapshot.memory_bytes
    )
    yield _gauges(
        "dllm_memory_peak_bytes",
        "Largest of a step so far, by owner; the least for free.",
        "owner",
        snapshot.memory_peak_bytes,
    )
    yield _gauges(
        "dllm_memory_predicted_bytes",
        "What the memory model predicted, by owner.",
        "owner",
        snapshot.memory_predicted_bytes,
    )
    yield _gauge("dllm_device_memory_bytes", "Memory of the device.", snapshot.device_memory_bytes)
    yield _counters("dllm_oom", "Out-of-memory errors contained, by phase.", "phase", snapshot.oom_total)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _step_seconds(histograms: Mapping[str, StepHistogram]) -> Metric:
    family = HistogramMetricFamily(
        "dllm_step_seconds", "Time of a step by what its batch held.", labels=["phase"]
    )
    for phase, histogram in histograms.items():
        bounds = [_bound(bound) for bound in histogram.bounds]
        family.add_metric([phase], list(zip(bounds, histogram.counts, strict=True)), histogram.total_seconds)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else str(seconds)
