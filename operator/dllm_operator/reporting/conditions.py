"""Status conditions and their transitions. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.reporting.reason import ConditionReason, FailureReason, NewsReason
from dllm_operator.scaling.policy import ScalingReason
from dllm_operator.tuning.decision import Reason as TuningReason

MAX_MESSAGE = 1024

AnyReason = ConditionReason | FailureReason | TuningReason | ScalingReason


@dataclass(frozen=True, slots=True)
class Condition:
    """`status` None is Unknown."""

    type: ConditionType
    status: bool | None
    reason: AnyReason
    message: str = ""

    @property
    def status_text(self) -> str:
        return "Unknown" if self.status is None else str(self.status)


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that changed its status or reason; worth an Event."""

    type: ConditionType
    reason: AnyReason | NewsReason
    message: str
    is_warning: bool


_EXPECTED = (
    ConditionReason.PODS_STARTING,
    ConditionReason.SCALED_TO_ZERO,
    ConditionReason.PAUSED,
    ConditionReason.DOOR_STARTING,
)  # and nothing is wrong
_ANNOUNCED = (
    ConditionType.SPEC_VALID,
    ConditionType.POOLS_SCHEDULED,
    ConditionType.INTEGRATIONS_READY,
    ConditionType.READY,
    ConditionType.DOOR_READY,
    ConditionType.SCALING_ACTIVE,
)
_ANNOUNCED_REASONS = (  # also of the other conditions
    ConditionReason.ROLLOUT_BLOCKED,
    ConditionReason.NAME_CONFLICT,
    FailureReason.PODS_REFUSED,
    ConditionReason.ROLLED_BACK,
    ConditionReason.ROLLOUT_STOPPED,
    ConditionReason.DEADLINE_EXCEEDED,
    ConditionReason.PAUSED,
)


def merge_conditions(
    previous: Iterable[Mapping[str, Any]], current: Iterable[Condition], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """As they go into status; `lastTransitionTime` moves only when the status does."""
    known = {condition["type"]: condition for condition in previous}
    merged = []
    for condition in current:
        before = known.get(condition.type, {})
        is_same = before.get("status") == condition.status_text
        merged.append(
            {
                "type": str(condition.type),
                "status": condition.status_text,
                "reason": str(condition.reason),
                "message": condition.message[:MAX_MESSAGE],
                "lastTransitionTime": before["lastTransitionTime"] if is_same else timestamp(now),
                "observedGeneration": generation,
            }
        )
    return merged


def transitions(previous: Iterable[Mapping[str, Any]], current: Iterable[Condition]) -> list[Transition]:
    """What changed for a reader of Events; a first healthy state of anything but Ready is no news."""
    known = {condition["type"]: condition for condition in previous}
    changed = []
    for condition in current:
        is_announced = condition.type in _ANNOUNCED or condition.reason in _ANNOUNCED_REASONS
        if not is_announced or condition.status is None:
            continue
        before = known.get(condition.type)
        if before is None and condition.status and condition.type is not ConditionType.READY:
            continue
        if before and (before["status"], before["reason"]) == (condition.status_text, condition.reason):
            continue
        changed.append(
            Transition(
                condition.type,
                condition.reason,
                condition.message,
                is_warning=not condition.status and condition.reason not in _EXPECTED,
            )
        )
    return changed


def timestamp(moment: datetime) -> str:
    """RFC 3339 in seconds, as the API server writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
