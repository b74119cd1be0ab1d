from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import Condition as StatusCondition
from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.reporting.conditions import (
    MAX_MESSAGE,
    Condition,
    merge_conditions,
    timestamp,
    transitions,
)

READY, SPEC, SCHEDULED = ConditionType.READY, ConditionType.SPEC_VALID, ConditionType.POOLS_SCHEDULED
FIRST = datetime(2026, 1, 1, 12, 0, 0, 999999, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 13, 0, 0, tzinfo=UTC)
STARTING = Condition(READY, False, "PodsStarting", "0 of 1 pods are ready")
SERVING = Condition(READY, True, "PodsReady", "1 of 1 pods are ready")
CRASHING = Condition(READY, False, "CrashLoop", "exit code 1")


def written(*current: Condition, before: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return merge_conditions(before or [], current, 1, FIRST)


@pytest.mark.parametrize(
    ("status", "text"), [(True, "True"), (False, "False"), (None, "Unknown")], ids=["yes", "no", "unknown"]
)
def test_a_condition_reads_as_the_api_wants_it(status: bool | None, text: str) -> None:
    [condition] = merge_conditions([], [Condition(READY, status, "Because", "so")], 7, FIRST)

    assert condition == {
        "type": "Ready",
        "status": text,
        "reason": "Because",
        "message": "so",
        "lastTransitionTime": "2026-01-01T12:00:00Z",
        "observedGeneration": 7,
    }
    assert StatusCondition.model_validate(condition).manifest() == condition


@pytest.mark.parametrize(
    ("after", "moment"),
    [
        pytest.param(STARTING, FIRST, id="nothing new"),
        pytest.param(CRASHING, FIRST, id="another reason"),
        pytest.param(SERVING, LATER, id="another status"),
    ],
)
def test_the_transition_time_moves_with_the_status_alone(after: Condition, moment: datetime) -> None:
    [condition] = merge_conditions(written(STARTING), [after], 2, LATER)

    assert condition["lastTransitionTime"] == timestamp(moment)
    assert (condition["reason"], condition["observedGeneration"]) == (after.reason, 2)


def test_conditions_written_twice_are_the_same() -> None:
    before = written(STARTING, Condition(SPEC, True, "Valid"))

    assert merge_conditions(before, [STARTING, Condition(SPEC, True, "Valid")], 1, LATER) == before


def test_a_condition_that_is_no_longer_known_is_dropped() -> None:
    before = [*written(STARTING), {"type": "Old", "status": "True", "lastTransitionTime": "x"}]

    assert [c["type"] for c in merge_conditions(before, [STARTING], 1, LATER)] == ["Ready"]


def test_a_long_message_is_capped() -> None:
    [condition] = written(Condition(READY, False, "CrashLoop", "x" * 5000))

    assert len(condition["message"]) == MAX_MESSAGE


@pytest.mark.parametrize(
    ("before", "after", "announced"),
    [
        pytest.param([], [STARTING], [("PodsStarting", False)], id="starting is told, and no warning"),
        pytest.param([], [SERVING], [("PodsReady", False)], id="first ready"),
        pytest.param([], [CRASHING], [("CrashLoop", True)], id="first failure"),
        pytest.param([STARTING], [STARTING], [], id="the same again"),
        pytest.param(
            [STARTING], [Condition(READY, False, "PodsStarting", "1 of 2")], [], id="other words alone"
        ),
        pytest.param([STARTING], [SERVING], [("PodsReady", False)], id="becomes ready"),
        pytest.param([SERVING], [CRASHING], [("CrashLoop", True)], id="fails"),
        pytest.param(
            [CRASHING], [Condition(READY, False, "OOMKilled")], [("OOMKilled", True)], id="fails otherwise"
        ),
        pytest.param([CRASHING], [SERVING], [("PodsReady", False)], id="recovers"),
        pytest.param(
            [SERVING],
            [Condition(READY, False, "ScaledToZero")],
            [("ScaledToZero", False)],
            id="scaled to zero",
        ),
        pytest.param([], [Condition(SPEC, True, "Valid")], [], id="a valid spec is no news"),
        pytest.param(
            [], [Condition(SPEC, False, "InvalidSpec")], [("InvalidSpec", True)], id="an invalid spec is"
        ),
        pytest.param(
            [Condition(SPEC, False, "InvalidSpec")],
            [Condition(SPEC, True, "Valid")],
            [("Valid", False)],
            id="a corrected spec is",
        ),
        pytest.param([], [Condition(SCHEDULED, None, "PodsPending")], [], id="unknown is no news"),
        pytest.param(
            [Condition(SCHEDULED, None, "PodsPending")],
            [Condition(SCHEDULED, False, "Unschedulable")],
            [("Unschedulable", True)],
            id="no room",
        ),
        pytest.param(
            [], [Condition(ConditionType.PROGRESSING, False, "ApplyFailed")], [], id="progress is not told"
        ),
        pytest.param(
            [],
            [Condition(ConditionType.INTEGRATIONS_READY, False, "CRDMissing")],
            [("CRDMissing", True)],
            id="a missing CRD",
        ),
    ],
)
def test_events_are_told_on_edges_only(
    before: list[Condition], after: list[Condition], announced: list[tuple[str, bool]]
) -> None:
    told = transitions(written(*before), after)

    assert [(transition.reason, transition.is_warning) for transition in told] == announced
