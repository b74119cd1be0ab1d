"""A fault of the operator's own, as a resource's status tells it. Pure.

An exception's text may hold anything, so the status says its type and where it came from; the log says more.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.reporting.conditions import Condition, merge_conditions
from dllm_operator.reporting.reason import ConditionReason

_PACKAGE = PurePath(__file__).parts[-3]


def place_of(error: BaseException) -> str:
    """``FILE:LINE`` of the newest frame of this package, of any package where it has none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _PACKAGE in PurePath(frame.filename).parts]
    frame = next(reversed(own or frames), None)
    if frame is None:
        return "nowhere"
    parts = PurePath(frame.filename).parts
    start = len(parts) - 1 - parts[::-1].index(_PACKAGE) if _PACKAGE in parts else -1
    return f"{'/'.join(parts[start:])}:{frame.lineno}"


def fault_conditions(error: BaseException, is_designed: bool) -> list[Condition]:
    """``is_designed``: the spec had been made into manifests before."""
    what = f"{type(error).__name__} at {place_of(error)}"
    message = (
        f"{what}: a fault of the operator, whose log has the traceback; nothing more is done for this "
        "generation, pods that run are left as they are, and it is tried again"
    )
    reason = ConditionReason.INTERNAL_ERROR
    return [
        Condition(ConditionType.READY, False, reason, message),
        Condition(ConditionType.PROGRESSING, False, reason, what),
        Condition(ConditionType.SPEC_VALID, None if is_designed else False, reason, what),
    ]


def fault_status(
    status: Mapping[str, Any], conditions: list[Condition], generation: int, now: datetime
) -> dict[str, Any]:
    """The last status with these conditions in it. The others, and ``observedGeneration``, stay what they
    were: nothing was done for the new one."""
    previous = {condition["type"]: condition for condition in status.get("conditions", ())}
    merged = {each["type"]: each for each in merge_conditions(previous.values(), conditions, generation, now)}
    return dict(status) | {"conditions": list((previous | merged).values())}
