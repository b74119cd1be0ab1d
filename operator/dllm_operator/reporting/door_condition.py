"""How the front door stands, as a condition. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.cluster.observe import Manifest, condition_of
from dllm_operator.planning.door import DoorPlan, available_doors
from dllm_operator.reporting.conditions import Condition
from dllm_operator.reporting.reason import ConditionReason


def door_ready(door: DoorPlan, live: Sequence[Manifest | None]) -> Condition:
    """Of a resource that has one; ``live`` are its Deployments."""
    kind, available = ConditionType.DOOR_READY, sum(map(available_doors, live))
    counts = f"{available} of {len(live)} pods are available"
    if door.is_open and available > 0:
        return Condition(kind, True, ConditionReason.DOOR_OPEN, counts)
    message = f"{counts}{next(filter(None, map(_why, live)), '')}"
    if door.is_open:
        return Condition(kind, False, ConditionReason.DOOR_NOT_READY, f"{message}; nobody answers requests")
    return Condition(
        kind, False, ConditionReason.DOOR_STARTING, f"{message}; the Service leads to the engines meanwhile"
    )


def _why(live: Manifest | None) -> str:
    """What the Deployment's controller says is wrong."""
    status = (live or {}).get("status", {})
    for kind, is_wrong in (("ReplicaFailure", "True"), ("Progressing", "False")):
        condition = condition_of(status, kind)
        if condition is not None and condition["status"] == is_wrong:
            return f": {condition.get('message', condition.get('reason', ''))}"
    return ""
