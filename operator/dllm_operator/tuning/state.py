"""What the controller remembers of a pool between windows. Immutable; `decide` returns the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

from dllm_operator.tuning.setting import Setting
from dllm_operator.tuning.speed import StepSums

SETTLE_WINDOWS = 1  # under load, after a change has been applied or a start from what others learned
CALM_WINDOWS = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """A step up that must show what it promised: tokens a busy second before, and as predicted (None: no
    model).
    """

    tokens_per_second: float
    predicted_tokens_per_second: float | None


@dataclass(frozen=True, slots=True)
class TuningState:
    """``window`` counts windows; the fields that name one hold its number. ``bytes_per_token`` is 0 until a
    step of some size has been seen; ``tokens_per_request`` is what a request brings to a step that it takes
    part in."""

    setting: Setting
    started: Setting
    generation: int = 0
    window: int = 0
    sums: StepSums = field(default_factory=StepSums)
    bytes_per_token: float = 0.0
    other_bytes: tuple[int, ...] = ()  # of the last windows, newest last
    base_other_bytes: int | None = None  # of the first window after a start
    tokens_per_request: float = 0.0
    pages_per_request: float | None = None
    rows_per_request: float = 0.0
    usable_share: float = 1.0  # of the token budget, that steps fill when it limits them
    ceiling_tokens: int | None = None  # a token budget that failed
    ceiling_pool_bytes: int = 0  # beside these pages
    ceiling_window: int = 0
    settling: int = 0
    trial: Trial | None = None
    misses: int = 0
    plateau_running: float | None = None  # requests that ran when a step up did not pay
    starved: int = 0
    restart_window: int | None = None
    restart_generation: int = 0  # the generation that the pods were last restarted for
    fallback: Setting | None = None  # what they had started with before
    fallback_restart: int = 0  # the generation that they had been restarted for then
    calm: int = 0  # windows in a row that asked for nothing

    @property
    def is_converged(self) -> bool:
        return self.calm >= CALM_WINDOWS
