"""What a pool did between two looks at its pods."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_operator.tuning.speed import StepSums


@dataclass(frozen=True, slots=True)
class PoolWindow:
    """Of all pods that answered. Bytes are the worst pod's; rates, sums and counts are a pod's mean where
    they say so.

    ``peak_tokens`` and ``peak_rows`` are the size of the step that held most, ``least_step_tokens`` is
    the most that one request needed in a step. ``out_of_memory`` is the device's, ``host_out_of_memory`` the
    kubelet's.
    ``tokens_per_request`` is what a request brought to a step that it took part in, 0 without a step.
    ``tight`` is the share of steps from which the token budget kept a request out; ``waiting``, ``running``
    and ``used_pages`` are means over time.
    """

    seconds: float
    pods: int
    pods_silent: int
    is_applied: bool  # every pod runs the newest generation
    device_bytes: int
    weights_bytes: int
    kv_pool_bytes: int
    other_bytes: int
    peak_bytes: int
    peak_activation_bytes: int
    peak_tokens: int
    peak_logits_bytes: int
    peak_rows: int
    least_step_tokens: int
    out_of_memory: int
    steps: StepSums
    committed_per_second: float  # a pod
    tokens_per_request: float
    tight: float
    waiting: float  # a pod
    running: float  # a pod
    used_pages: float  # a pod
    total_pages: int
    latency_p95_seconds: float | None = None
    host_out_of_memory: int = 0

    @property
    def has_traffic(self) -> bool:
        return self.steps.steps > 0

    @property
    def has_demand(self) -> bool:
        """Requests wait, so that more capacity would be used."""
        return self.waiting >= 1.0

    @property
    def peak_share(self) -> float:
        """Of the device's memory."""
        return self.peak_bytes / self.device_bytes

    @property
    def page_share(self) -> float:
        return self.used_pages / self.total_pages if self.total_pages else 0.0
