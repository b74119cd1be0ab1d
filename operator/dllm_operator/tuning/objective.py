"""What a pool is tuned for, within which bounds, and what is known of its memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dllm_operator.tuning.capacity import MemoryUse
from dllm_operator.tuning.setting import Bounds, Range
from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow

AIM_BELOW = 0.005  # of the device below the target: what predictions aim at
TOKEN_MARGIN = 1.05  # on the bytes a token: peaks are noisy
RESTART_COOLDOWN_WINDOWS = 20


@dataclass(frozen=True, slots=True)
class Objective:
    """``target`` is the share of the device's memory that peaks may reach; ``most_live_tokens`` is the
    largest token budget that engines take without a restart. ``is_host_memory``: the device's memory is the
    host's, so that the kubelet ends pods that take too much of it.

    What an engine does when it starts bounds every restart: it divides ``start_share`` of the device, sets
    ``reserved_bytes`` aside, and takes no token budget below the longest sequence it serves,
    ``least_start_tokens``. Pages get what is left, whatever was asked for."""

    target: float
    bounds: Bounds
    page_bytes: int
    bytes_per_row: float
    latency_p95_seconds: float | None = None
    most_live_tokens: int | None = None
    is_host_memory: bool = False
    start_share: float = 1.0
    reserved_bytes: int = 0
    least_start_tokens: int = 1

    @property
    def start_target(self) -> float:
        """What a prediction for a restart aims at."""
        return min(self.target, self.start_share) - AIM_BELOW

    @property
    def start_bounds(self) -> Bounds:
        """What can be set with a restart."""
        tokens = self.bounds.tokens
        low = min(max(tokens.low, self.least_start_tokens), tokens.high)
        return replace(self.bounds, tokens=Range(low, tokens.high))

    @property
    def live_bounds(self) -> Bounds:
        """What can be set without a restart."""
        if self.most_live_tokens is None:
            return self.bounds
        tokens = self.bounds.tokens
        high = max(min(tokens.high, self.most_live_tokens), 1)
        return replace(self.bounds, tokens=Range(min(tokens.low, high), high))


def memory_use(state: TuningState, window: PoolWindow, objective: Objective) -> MemoryUse:
    """What is known of the GPU type so far."""
    return MemoryUse(
        window.device_bytes,
        window.weights_bytes,
        max(state.other_bytes, default=window.other_bytes),
        state.bytes_per_token * TOKEN_MARGIN,
        objective.bytes_per_row,
        objective.page_bytes,
    )


def is_cooling(state: TuningState) -> bool:
    """Whether the last restart is too recent for another."""
    last = state.restart_window
    return last is not None and state.window - last < RESTART_COOLDOWN_WINDOWS
