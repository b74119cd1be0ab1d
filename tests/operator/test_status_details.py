from __future__ import annotations

from typing import Any

import pytest
from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.cluster.observe import ChildKey, Manifest
from dllm_operator.cluster.pools import Node
from dllm_operator.planning.plan import plan
from dllm_operator.reporting.conditions import Condition
from dllm_operator.reporting.status import Situation, conditions, situation, status_fields

from tests.operator.objects import make_deployment, make_gpu, make_observed, make_pod, make_resource

INVALID = {"replicas": "many"}
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


UNPLACED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}


def make_unplaced(name: str = "chat-l40s-2", template: str = "2", **spec: Any) -> Manifest:
    """A newer pod for which the scheduler finds no node."""
    pod = make_pod(name=name, node=None, born="2026-01-01T00:01:00Z", phase="Pending", conditions=[UNPLACED])
    pod["metadata"]["labels"] = pod["metadata"]["labels"] | {"pod-template-hash": template}
    return pod | {"spec": spec}


def make_situation(*pods: Manifest, live: Manifest, **spec: Any) -> Situation:
    """One discovered type of GPU and one live Deployment, ``chat-l40s``."""
    resource = make_resource(**spec)
    observed = make_observed(
        gpu_types=(make_gpu(),),
        pods=pods,
        nodes={"node-a": Node("node-a", {}, {})},
        children={ChildKey("Deployment", live["metadata"]["name"]): live},
    )
    planned = plan(resource.name, resource.spec, observed) if resource.spec is not None else None
    return situation(resource, planned, observed, None)


def said(now: Situation, kind: ConditionType) -> Condition:
    [condition] = [condition for condition in conditions(now) if condition.type is kind]
    return condition


@pytest.mark.parametrize(
    ("pods", "ready", "scheduled"),
    [
        pytest.param([make_pod()], "PodsStarting", "PodsScheduled", id="starting"),
        pytest.param([make_pod(is_ready=True)], "PodsReady", "PodsScheduled", id="serving"),
        pytest.param(
            [make_pod(node=None, phase="Pending")], "PodsStarting", "PodsPending", id="without a node"
        ),
    ],
)
def test_an_invalid_edit_leaves_the_conditions_of_the_pods_that_exist(
    pods: list[Manifest], ready: str, scheduled: str
) -> None:
    now = make_situation(*pods, live=make_deployment(), **INVALID)

    assert said(now, ConditionType.SPEC_VALID).status is False
    assert said(now, ConditionType.READY).reason == ready
    assert said(now, ConditionType.POOLS_SCHEDULED).reason == scheduled


def test_an_unplaced_pod_on_its_way_out_waits_for_no_node() -> None:
    leaving = make_pod(node=None, phase="Pending", name="chat-l40s-2", metadata=GOING)

    now = make_situation(make_pod(is_ready=True), leaving, live=make_deployment())

    assert said(now, ConditionType.POOLS_SCHEDULED).status is True


@pytest.mark.parametrize(("wanted", "is_ready"), [(1, True), (3, False)])
def test_ready_counts_against_the_spec_and_not_against_a_deployment_somebody_scaled(
    wanted: int, is_ready: bool
) -> None:
    now = make_situation(make_pod(is_ready=True), live=make_deployment(replicas=2), replicas=wanted)

    ready = said(now, ConditionType.READY)
    assert ready.status is is_ready
    assert ready.message == f"1 of {wanted} pods are ready"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        pytest.param({}, "TuningOff", id="not asked for"),
        pytest.param({"tuning": {"mode": "Auto"}}, "NoLookYet", id="not looked at yet"),
        pytest.param(INVALID, "InvalidSpec", id="invalid"),
    ],
)
def test_pools_that_are_not_tuned_say_why(spec: dict[str, Any], reason: str) -> None:
    assert (
        said(make_situation(live=make_deployment(), **spec), ConditionType.TUNING_CONVERGED).reason == reason
    )


def test_a_pool_on_cpus_has_no_product_and_no_gpus() -> None:
    fields = status_fields(make_situation(live=make_deployment("cpu", replicas=2), device="cpu", replicas=2))

    assert fields["gpus"] == 0
    assert fields["pools"] == [{"name": "cpu", "replicas": 2, "readyReplicas": 0, "gpus": 0}]


@pytest.mark.parametrize(
    ("rolling", "placement", "reason", "says"),
    [
        pytest.param({}, {}, "Unschedulable", "", id="an old pod is about to go"),
        pytest.param({"maxSurge": 1}, {}, "RolloutBlocked", "fixes maxSurge 1", id="fixed numbers"),
        pytest.param(
            {"maxSurge": 1, "maxUnavailable": 1}, {}, "Unschedulable", "", id="fixed, and one may go"
        ),
        pytest.param(
            {}, {"nodeSelector": {"zone": "b"}}, "RolloutBlocked", "asks for other nodes", id="elsewhere"
        ),
    ],
)
def test_a_rollout_that_cannot_go_on_says_so_with_its_remedy(
    rolling: dict[str, Any], placement: dict[str, Any], reason: str, says: str
) -> None:
    pods = make_pod(is_ready=True), make_unplaced(**placement)

    now = make_situation(*pods, live=make_deployment(pods=2), podTemplate={"rollingUpdate": rolling})

    progressing = said(now, ConditionType.PROGRESSING)
    assert (progressing.status, progressing.reason) == (False, reason)
    assert says in progressing.message
    assert said(now, ConditionType.READY).status is True


def test_a_pod_that_others_make_room_for_is_no_failure() -> None:
    leaving = make_pod(is_ready=True, metadata=GOING | {"labels": make_pod()["metadata"]["labels"]})

    now = make_situation(leaving, make_unplaced(), live=make_deployment())

    assert said(now, ConditionType.READY).reason == "PodsStarting"
    assert said(now, ConditionType.PROGRESSING).reason == "RollingOut"
    assert said(now, ConditionType.POOLS_SCHEDULED).reason == "PodsPending"


def test_nothing_of_a_resource_at_zero_is_stale() -> None:
    live = make_deployment(replicas=0, pods=0)

    now = make_situation(live=live, replicas=0, tuning={"mode": "Auto"})

    reasons = {condition.type: (condition.status, condition.reason) for condition in conditions(now)}
    assert reasons[ConditionType.READY] == (False, "ScaledToZero")
    assert reasons[ConditionType.POOLS_SCHEDULED] == (True, "ScaledToZero")
    assert reasons[ConditionType.TUNING_CONVERGED] == (None, "ScaledToZero")
    assert reasons[ConditionType.PROGRESSING] == (False, "Settled")
