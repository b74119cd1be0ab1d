"""Exceptions that nobody expected: what the status, the Events and the metrics say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import DLLMDeploymentStatus
from dllm_operator.cluster.kube import KubeError
from dllm_operator.reporting.fault import fault_conditions, fault_status, place_of
from structlog.testing import capture_logs

from tests.operator.test_reconciler import Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


def fail(*_: Any, **__: Any) -> Any:
    raise ValueError(f"no number: {SECRET}")


def in_planning(place: Place) -> None:
    place.planner.plan = fail  # type: ignore[method-assign]


def in_observing(place: Place) -> None:
    object.__setattr__(place.view, "_gpu_types", [None])


def in_applying(place: Place) -> None:
    place.reconciler._applier.sync = fail  # type: ignore[method-assign]


def in_the_status(place: Place) -> None:
    place.reconciler._with_edits = fail  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("break_it", "spec_valid"),
    [
        pytest.param(in_planning, "False", id="planning"),
        pytest.param(in_observing, "False", id="observing"),
        pytest.param(in_applying, "Unknown", id="applying"),
        pytest.param(in_the_status, "Unknown", id="the status"),
    ],
)
@pytest.mark.parametrize("is_live", [False, True], ids=["new", "serving"])
def test_an_exception_ends_in_conditions_and_does_not_claim_the_generation(
    break_it: Callable[[Place], None], spec_valid: str, is_live: bool, logs: list[Any]
) -> None:
    place = Place()
    if is_live:
        place.reconcile()
        place.become_ready()
        place.reconcile()
        place.edit(2, image="example.local/new:2")
    break_it(place)

    with pytest.raises((ValueError, AttributeError)) as caught:
        place.reconcile()

    status = place.status()
    found = {condition["type"]: condition for condition in status["conditions"]}
    assert {found[kind]["reason"] for kind in ("Ready", "Progressing", "SpecValid")} == {"InternalError"}
    assert (found["Ready"]["status"], found["SpecValid"]["status"]) == ("False", spec_valid)
    assert found["Ready"]["observedGeneration"] == (2 if is_live else 1)
    assert status.get("observedGeneration") == (1 if is_live else None)
    assert place.events() == [("Warning", "InternalError")]
    assert SECRET not in json.dumps(place.kube.bodies)
    assert place.counts.faults == ["reconcile"]
    assert [entry["exc_info"] for entry in logs if entry["event"] == "internal error"] == [caught.value]
    DLLMDeploymentStatus.model_validate(status)


def test_an_exception_that_stays_is_told_once_and_one_that_goes_leaves_nothing() -> None:
    place = Place()
    working = place.planner.plan
    in_planning(place)
    with pytest.raises(ValueError, match="no number"):
        place.reconcile()

    with pytest.raises(ValueError, match="no number"):
        place.reconcile()
    assert place.kube.calls == []

    place.planner.plan = working  # type: ignore[method-assign]
    place.reconcile()
    assert (place.reason("Ready"), place.reason("SpecValid")) == ("PodsStarting", "Valid")
    assert place.status()["observedGeneration"] == 1


@pytest.mark.parametrize("refused", [400, 413, 422])
def test_a_status_that_the_api_server_does_not_accept_becomes_the_least_that_can_be_said(
    refused: int,
) -> None:
    place = Place()
    place.reconcile()
    place.become_ready()
    apply, attempts = place.kube.apply, []

    async def refuse_first(kind: Any, manifest: Any, **options: Any) -> Any:
        if options.get("subresource") == "status" and not attempts:
            attempts.append(manifest)
            raise KubeError(refused, "Invalid", "status.pools[0].name: too long")
        return await apply(kind, manifest, **options)

    place.kube.apply = refuse_first  # type: ignore[assignment]
    with pytest.raises(KubeError):
        place.reconcile()

    assert place.reason("Ready") == "InternalError"


def test_a_fault_keeps_what_the_last_status_said_of_the_rest() -> None:
    before = {
        "observedGeneration": 3,
        "managedBy": "a/b",
        "pools": [{"name": "cpu"}],
        "conditions": [{"type": "PoolsScheduled", "status": "True", "reason": "PodsScheduled"}],
    }

    status = fault_status(before, fault_conditions(KeyError(SECRET), True), 4, NOW)

    assert {name: status[name] for name in ("observedGeneration", "managedBy", "pools")} == {
        "observedGeneration": 3,
        "managedBy": "a/b",
        "pools": [{"name": "cpu"}],
    }
    assert [each["type"] for each in status["conditions"]] == [
        "PoolsScheduled",
        "Ready",
        "Progressing",
        "SpecValid",
    ]
    assert SECRET not in json.dumps(status)


def test_the_place_is_the_newest_frame_of_the_operator() -> None:
    with pytest.raises(TypeError) as caught:
        Place().reconciler._design(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no number") as outside:
        fail()

    assert place_of(caught.value).startswith("dllm_operator/cluster/resource.py:")
    assert place_of(outside.value).startswith("test_fault.py:")
    assert place_of(ValueError()) == "nowhere"
