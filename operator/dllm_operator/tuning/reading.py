"""One pod's ``/metrics`` as numbers. What is missing or impossible is an error that names the series: a
controller must not act on it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families

from dllm_operator.tuning.speed import StepSums

Labels = tuple[tuple[str, str], ...]
Series = Mapping[str, Mapping[Labels, float]]

OWNERS = ("weights", "kv_pool", "activations", "logits", "other")
MOST_WINDOWS = 400  # an hour of ten seconds each
_SUMS = ("steps", "tokens", "seconds", "token_seconds", "squared_tokens")


class ReadingError(ValueError):
    """The text is no reading of an engine; the message names the series."""


@dataclass(frozen=True, slots=True)
class WindowReading:
    """One of the engine's windows that are over; see the server's documentation of ``/metrics``."""

    number: int
    start_seconds: float
    end_seconds: float
    generation: int
    peak_bytes: Mapping[str, int]  # by owner
    peak_tokens: int
    peak_rows: int
    least_step_tokens: int
    steps: int
    tokens: int
    step_requests: int
    committed_tokens: int
    out_of_memory: int
    most_waiting: int
    most_running: int
    least_free_pages: int
    tight_steps: int

    @property
    def held_bytes(self) -> int:
        """In the step that held most."""
        return sum(self.peak_bytes.values())


@dataclass(frozen=True, slots=True)
class PodReading:
    """``sums`` and ``out_of_memory`` (in steps, not while profiling) count since the engine began.
    ``reserved_bytes`` are set aside at the start for what has no other owner. ``windows``: oldest first,
    those that the engine still shows. ``latency``: requests that took at most so many seconds, by bound,
    growing; empty where the server counts none."""

    generation: int
    is_refused: bool
    device_bytes: int
    total_pages: int
    max_model_len: int
    reserved_bytes: int
    live: Mapping[str, float]
    floors: Mapping[str, float]
    ceilings: Mapping[str, float]
    sums: StepSums
    out_of_memory: int
    windows: tuple[WindowReading, ...]
    latency: tuple[tuple[float, float], ...] = ()


def parse_reading(text: str) -> PodReading:
    """``ReadingError`` where the text is not Prometheus's format, or lacks a series, or one is NaN, infinite
    or negative."""
    return reading_of(_series(text))


def reading_of(series: Series) -> PodReading:
    """From samples by name and labels; errors as ``parse_reading``'s."""
    pages = _by_label(series, "dllm_kv_pages", "state")
    device_bytes = int(_one(series, "dllm_device_memory_bytes"))
    if device_bytes == 0:
        raise ReadingError("dllm_device_memory_bytes is 0")
    contained = _by_label(series, "dllm_oom_total", "phase")
    sums = (sum(_by_label(series, f"dllm_step_fit_{name}_total", "phase").values()) for name in _SUMS)
    return PodReading(
        generation=int(_one(series, "dllm_tuning_generation")),
        is_refused=bool(_one(series, "dllm_tuning_refused")),
        device_bytes=device_bytes,
        total_pages=int(sum(pages.values())),
        max_model_len=int(_one(series, "dllm_max_model_len")),
        reserved_bytes=int(_by_label(series, "dllm_memory_predicted_bytes", "owner").get("other", 0.0)),
        live=_by_label(series, "dllm_live_setting", "setting"),
        floors=_by_label(series, "dllm_live_setting_floor", "setting"),
        ceilings=_by_label(series, "dllm_live_setting_ceiling", "setting"),
        sums=StepSums(*sums),
        out_of_memory=int(sum(count for phase, count in contained.items() if phase != "profile")),
        windows=_windows(series),
        latency=_latency(series),
    )


def merged(earlier: PodReading | None, now: PodReading) -> PodReading:
    """The newer reading of a pod with the windows that the earlier one still showed, unless its engine began
    anew."""
    if earlier is None or now.sums.steps < earlier.sums.steps:
        return now
    shown = {(window.number, window.start_seconds) for window in now.windows}
    gone = tuple(w for w in earlier.windows if (w.number, w.start_seconds) not in shown)
    return replace(now, windows=gone[-MOST_WINDOWS:] + now.windows)


def _series(text: str) -> Series:
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
    except ValueError as error:
        raise ReadingError("not Prometheus's text format") from error
    return found


def _latency(series: Series) -> tuple[tuple[float, float], ...]:
    name = "dllm_e2e_seconds_bucket"
    counts: dict[float, float] = defaultdict(float)
    for labels, count in series.get(name, {}).items():
        try:
            bound = float(dict(labels).get("le", ""))
        except ValueError as error:
            raise ReadingError(f"{name} has no bound") from error
        counts[bound] += _checked(name, count)
    return tuple(sorted(counts.items()))


def _windows(series: Series) -> tuple[WindowReading, ...]:
    peaks: dict[str, dict[str, int]] = defaultdict(dict)
    for labels, value in series.get("dllm_memory_window_peak_bytes", {}).items():
        by_name = dict(labels)
        if by_name.get("owner") in OWNERS:
            peaks[by_name.get("window", "")][by_name["owner"]] = int(
                _checked("dllm_memory_window_peak_bytes", value)
            )
    numbers = sorted(int(name) for name in peaks if name.isdigit())
    return tuple(_window(series, number, peaks[str(number)]) for number in numbers)


def _window(series: Series, number: int, peaks: Mapping[str, int]) -> WindowReading:
    def value(name: str) -> float:
        full = f"dllm_window_{name}"
        found = series.get(full, {}).get((("window", str(number)),))
        if found is None:
            raise ReadingError(f"{full} of a window is missing")
        return found if name == "generation" and found == -1 else _checked(full, found)

    missing = [owner for owner in OWNERS if owner not in peaks]
    if missing:
        raise ReadingError(f"dllm_memory_window_peak_bytes of a window lacks owner {missing[0]}")
    return WindowReading(
        number=number,
        start_seconds=value("start_seconds"),
        end_seconds=value("end_seconds"),
        generation=int(value("generation")),
        peak_bytes=dict(peaks),
        peak_tokens=int(value("peak_step_tokens")),
        peak_rows=int(value("peak_step_logits_rows")),
        least_step_tokens=int(value("least_step_tokens")),
        steps=int(value("steps")),
        tokens=int(value("tokens")),
        step_requests=int(value("step_requests")),
        committed_tokens=int(value("committed_tokens")),
        out_of_memory=int(value("oom")),
        most_waiting=int(value("most_waiting")),
        most_running=int(value("most_running")),
        least_free_pages=int(value("least_free_pages")),
        tight_steps=int(value("tight_steps")),
    )


def _one(series: Series, name: str) -> float:
    found = series.get(name, {}).get(())
    if found is None:
        raise ReadingError(f"{name} is missing")
    return _checked(name, found)


def _by_label(series: Series, name: str, label: str) -> dict[str, float]:
    samples = series.get(name)
    if not samples:
        raise ReadingError(f"{name} is missing")
    return {dict(labels).get(label, ""): _checked(name, value) for labels, value in samples.items()}


def _checked(name: str, value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ReadingError(f"{name} is {value:g}")
    return value
