"""What a tuner reads: bounds and settings in force, sums of step times, windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.metrics_core import Metric

from dllm_server.engine.requests.messages import EngineSnapshot, Window
from dllm_server.metric import MetricFamily, Values, counter, gauge

_STEP_SUMS = (
    ("steps", "n: steps that the sums of step time hold.", "steps"),
    ("tokens", "Sum of T, the query tokens of a step.", "tokens"),
    ("seconds", "Sum of s, the seconds of a step.", "seconds"),
    ("token_seconds", "Sum of T * s.", "tokens * seconds"),
    ("squared_tokens", "Sum of T * T.", "tokens * tokens"),
)
TUNING: tuple[tuple[MetricFamily, Callable[[EngineSnapshot], Values]], ...] = (
    (gauge("dllm_tuning_generation", "Tuning generation in force."), lambda now: now.tuning_generation),
    (
        counter("dllm_tuning_errors", "Tuning files that could not be applied.", unit="errors"),
        lambda now: now.tuning_errors_total,
    ),
    (
        gauge("dllm_tuning_refused", "1 while the newest tuning file is refused."),
        lambda now: now.is_tuning_refused,
    ),
    (gauge("dllm_live_setting", "Live settings in force.", ("setting",)), lambda now: now.live),
    (
        gauge("dllm_live_setting_floor", "What the requests in flight need at least.", ("setting",)),
        lambda now: now.floors,
    ),
    (
        gauge(
            "dllm_live_setting_ceiling", "Most that can be set while the other settings stay.", ("setting",)
        ),
        lambda now: now.ceilings,
    ),
    *(
        (
            counter(f"dllm_step_fit_{field}", text, ("phase",), unit),
            lambda now, field=field: {phase: getattr(sums, field) for phase, sums in now.step_sums.items()},
        )
        for field, text, unit in _STEP_SUMS
    ),
    (
        counter(
            "dllm_step_fit_left_out", "Steps that the sums of step time leave out.", ("reason",), unit="steps"
        ),
        lambda now: now.step_sums_left_out,
    ),
)
_PEAKS = gauge(
    "dllm_memory_window_peak_bytes",
    "Bytes by owner in the step that held most, by window.",
    ("window", "owner"),
)
_WINDOWS = {
    field: gauge(f"dllm_window_{field}", text, ("window",), unit)
    for field, text, unit in (
        ("start_seconds", "Unix time at which the window began.", None),
        ("end_seconds", "Unix time at which the window ended.", None),
        ("generation", "Tuning generation in force all the time, -1 when it changed.", None),
        ("peak_step_tokens", "Query tokens of the step that made the peak, 0 without a step.", None),
        ("peak_step_logits_rows", "Rows projected at once in the step that made the peak.", None),
        ("steps", "Steps that ended in the window.", None),
        ("tokens", "Query tokens of these steps.", None),
        ("step_requests", "Requests of these steps, each as often as it took part.", None),
        ("committed_tokens", "Tokens committed.", None),
        ("oom", "Out-of-memory errors contained.", "errors"),
        ("most_waiting", "Largest waiting queue.", "requests"),
        ("most_running", "Most requests that held pages.", "requests"),
        ("least_free_pages", "Fewest free KV pages.", None),
        (
            "least_step_tokens",
            "Most that one request in flight needs in a step: its sequence, or two blocks of a block-causal "
            "model.",
            None,
        ),
        ("tight_steps", "Steps from which the token budget kept a request out.", None),
        ("mean_batch_fill", "Mean of query tokens / token budget over the steps.", "0 to 1"),
    )
}
WINDOW_FAMILIES = (_PEAKS, *_WINDOWS.values())


def window_metrics(windows: Sequence[Window]) -> Iterator[Metric]:
    """The same numbers for every reader, until a window is too old."""
    yield _PEAKS.of(
        {(str(window.number), owner): held for window in windows for owner, held in window.peak_bytes.items()}
    )
    for field, family in _WINDOWS.items():
        yield family.of({str(window.number): getattr(window, field) for window in windows})
