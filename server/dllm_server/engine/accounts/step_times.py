"""Sums of step time against tokens, from which a reader fits floor and rate."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from statistics import median

from dllm_server.engine.requests.messages import StepSums

WARM_UP_STEPS = 8
OUTLIER_FACTOR = 4.0
_REMEMBERED_STEPS = 31
_JUDGED_FROM = 8


@dataclass(slots=True)
class StepTimes:
    """Adds up the steps that show the device's speed; the others are counted by reason.

    Left out are the ``WARM_UP_STEPS`` after a start, a change of settings or an out-of-memory error
    (allocators and caches fill), and outliers: a step that took more than ``OUTLIER_FACTOR`` times the median
    of the last steps of its kind with similar tokens (the same power of two, so that tokens alone explain
    less than a factor of 2). Outliers enter the median too: a device that has really become slower is
    believed after half of the remembered steps.
    """

    sums: dict[str, StepSums]
    left_out: dict[str, int] = field(default_factory=lambda: {"warm_up": 0, "outlier": 0})
    _warm_up_left: int = WARM_UP_STEPS
    _recent: dict[tuple[str, int], deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=_REMEMBERED_STEPS))
    )

    def warm_up(self) -> None:
        """The next ``WARM_UP_STEPS`` steps are left out."""
        self._warm_up_left = WARM_UP_STEPS

    def add(self, kind: str, tokens: int, seconds: float) -> None:
        """A step of ``tokens`` query tokens took ``seconds``."""
        if self._warm_up_left:
            self._warm_up_left -= 1
            self.left_out["warm_up"] += 1
            return
        recent = self._recent[kind, tokens.bit_length()]
        is_outlier = len(recent) >= _JUDGED_FROM and seconds > OUTLIER_FACTOR * median(recent)
        recent.append(seconds)
        if is_outlier:
            self.left_out["outlier"] += 1
        else:
            self.sums[kind] = self.sums[kind].plus(tokens, seconds)
