"""What a tuner reads: bounds and settings in force, sums of step times, windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from dllm_server.engine.requests.messages import EngineSnapshot, Window

WINDOW_GAUGES = {
    "start_seconds": "Unix time at which the window began.",
    "end_seconds": "Unix time at which the window ended.",
    "generation": "Tuning generation in force all the time, -1 when it changed.",
    "peak_step_tokens": "Query tokens of the step that made the peak, 0 without a step.",
    "peak_step_logits_rows": "Rows projected at once in the step that made the peak.",
    "steps": "Steps that ended in the window.",
    "tokens": "Query tokens of these steps.",
    "step_requests": "Requests of these steps, each as often as it took part.",
    "committed_tokens": "Tokens committed.",
    "oom": "Out-of-memory errors contained.",
    "most_waiting": "Largest waiting queue.",
    "most_running": "Most requests that held pages.",
    "least_free_pages": "Fewest free KV pages.",
    "least_step_tokens": "Most that one request in flight needs in a step: its sequence, or two blocks of a "
    "block-causal model.",
    "tight_steps": "Steps from which the token budget kept a request out.",
    "mean_batch_fill": "Mean of query tokens / token budget over the steps.",
}
STEP_SUMS = {
    "steps": ("dllm_step_fit_steps", "n: steps that the sums of step time hold."),
    "tokens": ("dllm_step_fit_tokens", "Sum of T, the query tokens of a step."),
    "seconds": ("dllm_step_fit_seconds", "Sum of s, the seconds of a step."),
    "token_seconds": ("dllm_step_fit_token_seconds", "Sum of T * s."),
    "squared_tokens": ("dllm_step_fit_squared_tokens", "Sum of T * T."),
}


def tuning_metrics(snapshot: EngineSnapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "dllm_tuning_generation", "Tuning generation in force.", value=snapshot.tuning_generation
    )
    yield CounterMetricFamily(
        "dllm_tuning_errors", "Tuning files that could not be applied.", value=snapshot.tuning_errors_total
    )
    yield GaugeMetricFamily(
        "dllm_tuning_refused", "1 while the newest tuning file is refused.", value=snapshot.is_tuning_refused
    )
    for name, text, values in (
        ("dllm_live_setting", "Live settings in force.", snapshot.live),
        ("dllm_live_setting_floor", "What the requests in flight need at least.", snapshot.floors),
        (
            "dllm_live_setting_ceiling",
            "Most that can be set while the other settings stay.",
            snapshot.ceilings,
        ),
    ):
        yield _labelled(GaugeMetricFamily(name, text, labels=["setting"]), values)
    for field, (name, text) in STEP_SUMS.items():
        values = {phase: getattr(sums, field) for phase, sums in snapshot.step_sums.items()}
        yield _labelled(CounterMetricFamily(name, text, labels=["phase"]), values)
    yield _labelled(
        CounterMetricFamily(
            "dllm_step_fit_left_out", "Steps that the sums of step time leave out.", labels=["reason"]
        ),
        snapshot.step_sums_left_out,
    )


def window_metrics(windows: Sequence[Window]) -> Iterator[Metric]:
    """The same numbers for every reader, until a window is too old."""
    peaks = GaugeMetricFamily(
        "dllm_memory_window_peak_bytes",
        "Bytes by owner in the step that held most, by window.",
        labels=["window", "owner"],
    )
    for window in windows:
        for owner, value in window.peak_bytes.items():
            peaks.add_metric([str(window.number), owner], value)
    yield peaks
    for field, text in WINDOW_GAUGES.items():
        values = {str(window.number): getattr(window, field) for window in windows}
        yield _labelled(GaugeMetricFamily(f"dllm_window_{field}", text, labels=["window"]), values)


def _labelled(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]) -> Metric:
    for key, value in values.items():
        family.add_metric([key], value)
    return family
