"""Two rounds of readings of a pool's pods -> what the pool did in between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from dllm_operator.tuning.reading import PodReading, WindowReading
from dllm_operator.tuning.speed import StepSums
from dllm_operator.tuning.window import PoolWindow

OUTLIER_SHARE = 0.05  # of the device, held beyond what the pool's pods usually hold
OUTLIER_PODS = 3  # fewer have no usual
LATENCY_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class PoolObservation:
    """``notes`` are sentences for the status: pods that say nothing, refuse, or differ from the others."""

    window: PoolWindow
    notes: tuple[str, ...] = ()

    @property
    def is_conclusive(self) -> bool:
        """Whether anything was seen. If not, the next look is compared with the same earlier readings, so
        that nothing that happened in between is lost."""
        return self.window.seconds > 0 or self.window.out_of_memory + self.window.host_out_of_memory > 0


def observe_pool(
    before: Mapping[str, PodReading],
    now: Mapping[str, PodReading],
    silent: Mapping[str, str],
    *,
    generation: int,
    kills: int = 0,
    host_kills: int = 0,
) -> PoolObservation:
    """By pod name. What a pod counted before it was first read is nobody's evidence: its first reading is
    what later ones are compared with.

    Args:
        silent: pods that should answer and did not, with the reason.
        generation: the newest one; windows of other generations are no evidence.
        kills: pods that the device's memory ended since the last look; ``host_kills``: the kubelet, at their
            memory limit.
    """
    notes = [f"{pod}: {reason}" for pod, reason in sorted(silent.items())]
    notes += [f"{pod}: refuses the tuning file" for pod, reading in sorted(now.items()) if reading.is_refused]
    notes += _outliers(now)
    fresh = {pod: _fresh(before.get(pod), reading, generation) for pod, reading in now.items()}
    windows = [window for of_pod in fresh.values() for window in of_pod]
    applied = [reading.generation == generation for reading in now.values()]
    window = _window(before, now, fresh, windows, len(silent), all(applied), kills)
    return PoolObservation(replace(window, host_out_of_memory=host_kills), tuple(notes))


def _window(
    before: Mapping[str, PodReading],
    now: Mapping[str, PodReading],
    fresh: Mapping[str, Sequence[WindowReading]],
    windows: Sequence[WindowReading],
    silent: int,
    is_applied: bool,
    kills: int,
) -> PoolWindow:
    worst_pod = max(fresh, key=lambda pod: _peak_share(now[pod], fresh[pod]), default=None)
    worst = max(fresh[worst_pod], key=lambda w: w.held_bytes, default=None) if worst_pod else None
    reading = now[worst_pod] if worst_pod else None
    peaks = worst.peak_bytes if worst else {}
    seconds = sum(window.end_seconds - window.start_seconds for window in windows)
    steps = (_new_sums(before.get(pod), now[pod]) for pod in now)
    pages = [now[pod].total_pages - w.least_free_pages for pod, ws in fresh.items() for w in ws]
    return PoolWindow(
        seconds=seconds / max(len(now), 1),
        pods=len(now),
        pods_silent=silent,
        is_applied=is_applied,
        device_bytes=reading.device_bytes if reading else 1,
        weights_bytes=peaks.get("weights", 0),
        kv_pool_bytes=peaks.get("kv_pool", 0),
        other_bytes=peaks.get("other", 0),
        peak_bytes=worst.held_bytes if worst else 0,
        peak_activation_bytes=peaks.get("activations", 0),
        peak_tokens=worst.peak_tokens if worst else 0,
        peak_logits_bytes=peaks.get("logits", 0),
        peak_rows=worst.peak_rows if worst else 0,
        least_step_tokens=max((w.least_step_tokens for w in windows), default=0),
        out_of_memory=kills + sum(_new_out_of_memory(before.get(pod), now[pod]) for pod in now),
        steps=sum(steps, StepSums()) if windows else StepSums(),
        committed_per_second=sum(w.committed_tokens for w in windows) / seconds if seconds else 0.0,
        tokens_per_request=_tokens_per_request(windows),
        tight=_tight(windows),
        waiting=fmean(w.most_waiting for w in windows) if windows else 0.0,
        running=fmean(w.most_running for w in windows) if windows else 0.0,
        used_pages=fmean(pages) if pages else 0.0,
        total_pages=reading.total_pages if reading else 0,
        latency_p95_seconds=_latency_p95(before, now),
    )


def _fresh(before: PodReading | None, now: PodReading, generation: int) -> tuple[WindowReading, ...]:
    """Windows that the earlier reading did not have, of the newest generation. An engine that began anew
    counts its windows from 0 again."""
    seen = {(w.number, w.start_seconds) for w in before.windows} if before else set()
    return tuple(
        w for w in now.windows if (w.number, w.start_seconds) not in seen and w.generation == generation
    )


def _new_sums(before: PodReading | None, now: PodReading) -> StepSums:
    """A counter that went back belongs to a new process: all of it is new."""
    if before is None:
        return StepSums()
    if now.sums.steps < before.sums.steps or now.sums.tokens < before.sums.tokens:
        return now.sums
    return now.sums - before.sums


def _new_out_of_memory(before: PodReading | None, now: PodReading) -> int:
    if before is None:
        return 0
    if now.out_of_memory < before.out_of_memory:
        return now.out_of_memory
    return now.out_of_memory - before.out_of_memory


def _latency_p95(before: Mapping[str, PodReading], now: Mapping[str, PodReading]) -> float | None:
    """Over all pods, as if latencies were even within a bucket; None without requests."""
    counts: dict[float, float] = {}
    for pod, reading in now.items():
        earlier = before.get(pod)
        if earlier is None:
            continue
        known = dict(earlier.latency) if reading.sums.steps >= earlier.sums.steps else {}
        for bound, count in reading.latency:
            counts[bound] = counts.get(bound, 0.0) + max(count - known.get(bound, 0.0), 0.0)
    total = counts.get(math.inf, 0.0)
    if total <= 0:
        return None
    wanted, lower, below = LATENCY_SHARE * total, 0.0, 0.0
    for bound in sorted(counts):
        if math.isinf(bound):
            break
        if counts[bound] >= wanted:
            return lower + (bound - lower) * (wanted - below) / max(counts[bound] - below, 1e-9)
        lower, below = bound, counts[bound]
    return lower  # beyond the last bound: at least that


def _peak_share(reading: PodReading, windows: Sequence[WindowReading]) -> float:
    return max((window.held_bytes for window in windows), default=0) / reading.device_bytes


def _tokens_per_request(windows: Sequence[WindowReading]) -> float:
    requests = sum(window.step_requests for window in windows)
    return sum(window.tokens for window in windows) / requests if requests else 0.0


def _tight(windows: Sequence[WindowReading]) -> float:
    steps = sum(window.steps for window in windows)
    return sum(window.tight_steps for window in windows) / steps if steps else 0.0


def _outliers(now: Mapping[str, PodReading]) -> list[str]:
    """Pods that hold more than the others under the same settings: another tenant on the GPU, or a leak."""
    held = {pod: reading.windows[-1].peak_bytes["other"] for pod, reading in now.items() if reading.windows}
    if len(held) < OUTLIER_PODS:
        return []
    usual = median(held.values())
    return [
        f"{pod}: holds {(other - usual) / 2**20:.0f} MiB more than the pool's pods usually do"
        for pod, other in sorted(held.items())
        if other - usual > OUTLIER_SHARE * now[pod].device_bytes
    ]
