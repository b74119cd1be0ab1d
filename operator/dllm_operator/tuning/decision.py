"""What the controller answers: at most one change of a pool, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dllm_operator.tuning.setting import Setting


class Reason(StrEnum):
    """Why a setting was changed, or why it was not."""

    OUT_OF_MEMORY = "OutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    PEAK_ABOVE_TARGET = "PeakAboveTarget"
    LEAK = "Leak"
    LATENCY_ABOVE_OBJECTIVE = "LatencyAboveObjective"
    MODEL_STEP = "ModelStep"
    CAUTIOUS_STEP = "CautiousStep"
    SPLIT_MOVED = "SplitMoved"
    NO_READINGS = "NoReadings"
    APPLYING = "Applying"
    NOT_APPLIED = "NotApplied"
    ROLLED_BACK = "RolledBack"
    SETTLING = "Settling"
    NO_TRAFFIC = "NoTraffic"
    PLATEAU = "Plateau"
    SATISFIED = "Satisfied"
    AT_BOUNDS = "AtBounds"


class Action(StrEnum):
    LIVE = "Live"  # through the tuning file
    RESTART = "Restart"  # by a rolling restart of the pool


@dataclass(frozen=True, slots=True)
class Change:
    action: Action
    setting: Setting


@dataclass(frozen=True, slots=True)
class Decision:
    """``change`` is None to leave things as they are."""

    reason: Reason
    message: str
    change: Change | None = None
