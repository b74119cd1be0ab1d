"""What the operator makes of the load, as a condition. Pure."""

from __future__ import annotations

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.reporting.conditions import Condition
from dllm_operator.reporting.reason import ConditionReason
from dllm_operator.scaling.record import Scaling


def scaling_active(scaling: Scaling) -> Condition:
    """Of a resource that the operator scales."""
    kind = ConditionType.SCALING_ACTIVE
    if scaling.silent:
        message = f"the front door cannot be asked, and the number of pods stays: {scaling.silent}"
        return Condition(kind, False, ConditionReason.DOOR_SILENT, message)
    if scaling.reason is None:
        return Condition(kind, None, ConditionReason.NO_LOOK_YET, "the front door has not been looked at yet")
    return Condition(kind, True, scaling.reason, scaling.message)
