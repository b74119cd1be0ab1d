"""What the tuning of a resource's pools comes to: its condition and its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dllm_operator.api.v1alpha1 import ConditionType, TuningMode
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.reporting.conditions import Condition, Transition
from dllm_operator.reporting.reason import ConditionReason, NewsReason
from dllm_operator.tuning.decision import Reason
from dllm_operator.tuning.record import PoolTuning

_TROUBLE = (  # worst first
    Reason.ROLLED_BACK,
    Reason.LEAK,
    Reason.HOST_OUT_OF_MEMORY,
    Reason.OUT_OF_MEMORY,
    Reason.NOT_APPLIED,
    Reason.NO_READINGS,
)
_WARNINGS = frozenset(_TROUBLE) - {Reason.NO_READINGS}


def tuning_converged(mode: TuningMode, pools: Sequence[PoolPlan]) -> Condition:
    """True where no pool wants another change; the reason is the worst pool's."""
    kind = ConditionType.TUNING_CONVERGED
    if mode is TuningMode.OFF:
        return Condition(kind, None, ConditionReason.TUNING_OFF, "tuning.mode is Off")
    tuned = [(pool.name, pool.tuning) for pool in pools if pool.tuning is not None]
    if not tuned or all(tuning.looked_at is None for _, tuning in tuned):
        return Condition(kind, None, ConditionReason.NO_LOOK_YET, "no pod has been read yet")
    message = "; ".join(f"pool {name}: {_sentence(tuning)}" for name, tuning in tuned)
    reasons = {tuning.reason for _, tuning in tuned}
    worst = next((reason for reason in _TROUBLE if reason in reasons), None)
    if worst is Reason.NO_READINGS:
        return Condition(kind, None, worst, message)
    if worst is not None:
        return Condition(kind, False, worst, message)
    if any(tuning.proposal for _, tuning in tuned):
        return Condition(kind, False, ConditionReason.CHANGE_PROPOSED, message)
    if all(tuning.state.is_converged for _, tuning in tuned):
        return Condition(kind, True, ConditionReason.CONVERGED, message)
    return Condition(kind, False, ConditionReason.TUNING, message)


def tuned_budgets(pools: Iterable[PoolPlan]) -> str:
    """``a10g=3072 l40s=8192``, as they run, of the pools whose engines are told."""
    return " ".join(
        f"{pool.name}={(pool.tuning.running or pool.tuning.state.setting).max_num_batched_tokens}"
        for pool in pools
        if pool.tuning is not None and pool.is_tuned
    )


def tuning_events(previous: Mapping[str, Any], pools: Iterable[PoolPlan]) -> list[Transition]:
    """Changes, trouble that began, and edits that were undone, since the status was last written."""
    known = {pool["name"]: pool.get("tuning") or {} for pool in previous.get("pools", ())}
    found = []
    for pool in pools:
        if pool.tuning is not None and pool.tuning.looked_at is not None:
            found += _events(pool.name, known.get(pool.name, {}), pool.tuning)
    return found


def _events(pool: str, before: Mapping[str, Any], tuning: PoolTuning) -> list[Transition]:
    now = tuning.status().manifest()
    found = []
    change = now.get("lastChange")
    if change is not None and change != before.get("lastChange"):
        found.append(_transition(pool, change["reason"], change["message"]))
    elif tuning.reason in _WARNINGS and before.get("reason") != tuning.reason:
        found.append(_transition(pool, Reason(tuning.reason), tuning.message))
    if "editedAt" in now and now["editedAt"] != before.get("editedAt"):
        found.append(_transition(pool, NewsReason.EDIT_UNDONE, "someone else edited the tuning ConfigMap"))
    return found


def _transition(pool: str, reason: Reason | NewsReason, message: str) -> Transition:
    is_warning = reason in _WARNINGS or reason == NewsReason.EDIT_UNDONE
    return Transition(ConditionType.TUNING_CONVERGED, reason, f"pool {pool}: {message}", is_warning)


def _sentence(tuning: PoolTuning) -> str:
    notes = f" ({'; '.join(tuning.notes)})" if tuning.notes else ""
    would = "would change: " if tuning.proposal else ""
    return f"{would}{tuning.message}{notes}"
