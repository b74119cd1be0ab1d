from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from dllm_operator.api.status import SOMETIMES
from dllm_operator.api.v1alpha1 import ConditionType, DLLMDeploymentStatus
from dllm_operator.cluster.observe import ChildKey, Integration, Manifest
from dllm_operator.planning.plan import plan
from dllm_operator.reporting.conditions import merge_conditions
from dllm_operator.reporting.reason import ConditionReason
from dllm_operator.reporting.status import (
    Obstacle,
    Situation,
    conditions,
    situation,
    status_fields,
)

from tests.operator.objects import (
    make_container,
    make_deployment,
    make_gpu,
    make_observed,
    make_pod,
    make_refused,
    make_resource,
)

L40S = make_gpu("NVIDIA-L40S", memory_mib=46068)
READY_POD = make_pod(is_ready=True)
INVALID = {"replicas": "many"}
AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 4,
    "metric": {"target": 4},
    "prometheusAddress": "http://p:9090",
}
UNSCHEDULABLE = make_pod(
    node=None,
    phase="Pending",
    conditions=[
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}
    ],
)
CRASHING = make_pod(
    make_container({}, {"terminated": {"exitCode": 1, "message": "boom"}}, restartCount=2),
    name="chat-l40s-2",
)

FORBIDDEN = 'pods "chat-l40s-7d-" is forbidden: exceeded quota: gpus'


DENIED = Obstacle(ConditionReason.APPLY_FAILED, "Service chat: denied")


def make_situation(
    *pods: Manifest,
    live: Manifest | None = None,
    error: Obstacle | None = None,
    observed: dict[str, Any] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Situation:
    resource = make_resource(generation=3, status=status, **spec)
    children = {} if live is None else {ChildKey("Deployment", live["metadata"]["name"]): live}
    seen = make_observed(**{"gpu_types": (L40S,), "pods": pods, "children": children} | (observed or {}))
    planned = plan(resource.name, resource.spec, seen) if resource.spec is not None else None
    return situation(resource, planned, seen, error)


def said(now: Situation, kind: ConditionType) -> tuple[str, str]:
    [condition] = [condition for condition in conditions(now) if condition.type is kind]
    return condition.status_text, condition.reason


READY = [
    pytest.param(make_situation(), "False", "PodsStarting", id="nothing made yet"),
    pytest.param(make_situation(make_pod(), live=make_deployment()), "False", "PodsStarting", id="starting"),
    pytest.param(make_situation(READY_POD, live=make_deployment()), "True", "PodsReady", id="ready"),
    pytest.param(
        make_situation(READY_POD, CRASHING, live=make_deployment(replicas=2), replicas=2),
        "False",
        "CrashLoop",
        id="one of two crashes",
    ),
    pytest.param(
        make_situation(READY_POD, CRASHING, live=make_deployment(pods=2, updated=1)),
        "True",
        "PodsReady",
        id="the old pod serves while the new one crashes",
    ),
    pytest.param(
        make_situation(READY_POD, live=make_deployment(is_observed=False)),
        "True",
        "PodsReady",
        id="a rollout that has not begun",
    ),
    pytest.param(
        make_situation(live=make_deployment(replicas=0), replicas=0), "False", "ScaledToZero", id="zero"
    ),
    pytest.param(make_situation(**INVALID), "False", "InvalidSpec", id="invalid and nothing exists"),
    pytest.param(
        make_situation(READY_POD, live=make_deployment(), **INVALID),
        "True",
        "PodsReady",
        id="invalid while the former pods serve",
    ),
    pytest.param(make_situation(observed={"gpu_types": ()}), "False", "NoGPUNodes", id="no GPU nodes"),
    pytest.param(make_situation(error=DENIED), "False", "ApplyFailed", id="refused"),
    pytest.param(
        make_situation(READY_POD, live=make_deployment(), error=DENIED),
        "True",
        "PodsReady",
        id="refused while the pods serve",
    ),
    pytest.param(
        make_situation(CRASHING, live=make_deployment(), error=DENIED),
        "False",
        "CrashLoop",
        id="a failure tells more than a refusal",
    ),
    pytest.param(
        make_situation(UNSCHEDULABLE, live=make_deployment()), "False", "Unschedulable", id="no room"
    ),
    pytest.param(
        make_situation(make_pod(), live=make_deployment(), observed={"lost_nodes": frozenset({"node-a"})}),
        "False",
        "NodeLost",
        id="node lost",
    ),
    pytest.param(
        make_situation(
            READY_POD,
            live=make_deployment(),
            observed={"gpu_types": (L40S, make_gpu("NVIDIA-L4")), "pods": (READY_POD, READY_POD)},
        ),
        "False",
        "PodsStarting",
        id="a surplus of one pool is no stand-in for another",
    ),
    pytest.param(
        make_situation(live=make_deployment(replicas=0), autoscaling=AUTOSCALING),
        "False",
        "ScaledToZero",
        id="scaled to zero by the autoscaler",
    ),
    pytest.param(
        make_situation(READY_POD, live=make_deployment(replicas=2), autoscaling=AUTOSCALING),
        "False",
        "PodsStarting",
        id="the autoscaler asks for more",
    ),
]


@pytest.mark.parametrize(("now", "status", "reason"), READY)
def test_ready_says_whether_every_wanted_pod_serves_or_else_why_not(
    now: Situation, status: str, reason: str
) -> None:
    assert said(now, ConditionType.READY) == (status, reason)


@pytest.mark.parametrize(
    ("now", "status", "reason"),
    [
        pytest.param(make_situation(), "True", "RollingOut", id="nothing made yet"),
        pytest.param(make_situation(READY_POD, live=make_deployment()), "False", "Settled", id="ready"),
        pytest.param(
            make_situation(READY_POD, live=make_deployment(is_observed=False)),
            "True",
            "RollingOut",
            id="a rollout that has not begun",
        ),
        pytest.param(
            make_situation(READY_POD, live=make_deployment(pods=2, updated=1)),
            "True",
            "RollingOut",
            id="old pods are left",
        ),
        pytest.param(
            make_situation(READY_POD, CRASHING, live=make_deployment(pods=2, updated=1)),
            "False",
            "CrashLoop",
            id="a rollout that is stuck",
        ),
        pytest.param(
            make_situation(READY_POD, live=make_deployment(), error=DENIED),
            "False",
            "ApplyFailed",
            id="refused",
        ),
    ],
)
def test_progressing_says_whether_a_rollout_goes_on(now: Situation, status: str, reason: str) -> None:
    assert said(now, ConditionType.PROGRESSING) == (status, reason)


@pytest.mark.parametrize(
    ("now", "status", "reason"),
    [
        pytest.param(make_situation(), "Unknown", "PodsPending", id="no pods yet"),
        pytest.param(
            make_situation(make_pod(node=None, phase="Pending"), live=make_deployment()),
            "Unknown",
            "PodsPending",
            id="not seen by the scheduler",
        ),
        pytest.param(
            make_situation(UNSCHEDULABLE, live=make_deployment()), "False", "Unschedulable", id="no room"
        ),
        pytest.param(
            make_situation(make_pod(), live=make_deployment()), "True", "PodsScheduled", id="placed"
        ),
        pytest.param(make_situation(observed={"gpu_types": ()}), "False", "NoGPUNodes", id="no GPU nodes"),
        pytest.param(make_situation(**INVALID), "Unknown", "InvalidSpec", id="invalid and nothing exists"),
    ],
)
def test_pools_scheduled_says_whether_every_pod_has_a_node(now: Situation, status: str, reason: str) -> None:
    assert said(now, ConditionType.POOLS_SCHEDULED) == (status, reason)


@pytest.mark.parametrize(
    ("spec", "available", "status", "reason"),
    [
        pytest.param({}, Integration, "True", "NotRequested", id="none asked for"),
        pytest.param({"monitoring": {"podMonitor": True}}, Integration, "True", "Created", id="made"),
        pytest.param({"monitoring": {"podMonitor": True}}, (), "False", "CRDMissing", id="CRD missing"),
    ],
)
def test_integrations_say_whether_their_definitions_exist(
    spec: dict[str, Any], available: Any, status: str, reason: str
) -> None:
    now = make_situation(observed={"integrations": frozenset(available)}, **spec)

    assert said(now, ConditionType.INTEGRATIONS_READY) == (status, reason)


def test_a_missing_definition_is_named() -> None:
    now = make_situation(monitoring={"podMonitor": True}, autoscaling=AUTOSCALING)

    [message] = [c.message for c in conditions(now) if c.type is ConditionType.INTEGRATIONS_READY]
    assert message.startswith("ScaledObject, PodMonitor: the CRD is not installed")


@pytest.mark.parametrize("spec", [{}, INVALID], ids=["valid", "invalid"])
def test_a_problem_of_the_spec_is_named_with_its_field(spec: dict[str, Any]) -> None:
    [condition] = [c for c in conditions(make_situation(**spec)) if c.type is ConditionType.SPEC_VALID]

    assert condition.status is not bool(spec)
    assert ("spec.replicas: " in condition.message) is bool(spec)


@pytest.mark.parametrize("mode", ["Off", "Observe", "Auto"])
def test_tuning_is_not_known_to_have_converged(mode: str) -> None:
    status, _ = said(make_situation(tuning={"mode": mode}), ConditionType.TUNING_CONVERGED)

    assert status == "Unknown"


def test_every_condition_is_there_once_in_the_order_users_read_them() -> None:
    for now in (make_situation(), make_situation(**INVALID)):
        always = [kind for kind in ConditionType if kind not in SOMETIMES]
        assert [condition.type for condition in conditions(now)] == always


def test_status_counts_pods_and_gpus_by_pool_and_names_the_endpoint() -> None:
    now = make_situation(
        READY_POD,
        live=make_deployment(replicas=2, updated=1),
        gpuPools=[{"name": "l40s", "product": "L40S", "gpusPerReplica": 2}],
        replicas=2,
        networking={"port": 9000},
    )

    assert status_fields(now) == {
        "observedGeneration": 3,
        "replicas": 2,
        "readyReplicas": 1,
        "gpus": 4,
        "selector": "app.kubernetes.io/instance=chat,app.kubernetes.io/managed-by=dllm-operator",
        "url": "http://chat.team-a.svc:9000",
        "pools": [
            {
                "name": "l40s",
                "product": "NVIDIA-L40S",
                "memoryMib": 46068,
                "replicas": 2,
                "readyReplicas": 1,
                "gpus": 4,
            }
        ],
    }


def test_an_invalid_edit_keeps_the_pools_and_the_url_that_serve() -> None:
    url = "http://chat.team-a.svc:8000"
    fields = status_fields(make_situation(READY_POD, live=make_deployment(), status={"url": url}, **INVALID))

    assert fields["url"] == url
    assert [(pool["name"], pool["readyReplicas"]) for pool in fields["pools"]] == [("l40s", 1)]


@pytest.mark.parametrize("now", [case.values[0] for case in READY], ids=[case.id for case in READY])
def test_a_status_is_what_the_api_allows_and_the_same_when_computed_again(now: Situation) -> None:
    moments = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
    first = merge_conditions([], conditions(now), 3, moments[0])
    status = status_fields(now) | {"conditions": first}

    assert merge_conditions(first, conditions(now), 3, moments[1]) == first
    assert DLLMDeploymentStatus.model_validate(status).manifest() == status


def test_pods_that_were_ready_and_are_not_any_more_do_not_start() -> None:
    up = make_container({"running": {"startedAt": "2026-01-01T10:00:00Z"}}, started=True)
    lapsed = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T10:05:00Z"}
    pod = make_pod(up, conditions=[{"type": "PodScheduled", "status": "True"}, lapsed])

    ready = conditions(make_situation(pod, live=make_deployment()))[0]

    assert (ready.status, ready.reason) == (False, "PodsNotReady")
    assert ready.message.startswith("0 of 1 pods are ready; pod chat-l40s-1 runs but is not ready")


REFUSED = make_situation(live=make_refused(make_deployment(pods=0), FORBIDDEN))
REFUSED_BESIDE = make_situation(READY_POD, live=make_refused(make_deployment(pods=1, updated=0), FORBIDDEN))


@pytest.mark.parametrize(
    ("now", "kind", "status"),
    [
        pytest.param(REFUSED, ConditionType.READY, "False", id="no pod"),
        pytest.param(REFUSED, ConditionType.PROGRESSING, "False", id="no pod, no progress"),
        pytest.param(REFUSED, ConditionType.POOLS_SCHEDULED, "False", id="no pod, no node"),
        pytest.param(REFUSED_BESIDE, ConditionType.PROGRESSING, "False", id="beside an old pod"),
    ],
)
def test_pods_that_the_api_server_refuses_are_told_in_its_words(
    now: Situation, kind: ConditionType, status: str
) -> None:
    [condition] = [condition for condition in conditions(now) if condition.type is kind]

    assert (condition.status_text, condition.reason) == (status, "PodsRefused")
    assert condition.message.endswith(f"pool l40s: {FORBIDDEN}")


def test_an_old_pod_serves_while_new_ones_are_refused() -> None:
    assert said(REFUSED_BESIDE, ConditionType.READY) == ("True", "PodsReady")


def test_a_refusal_that_is_over_is_not_told() -> None:
    now = make_situation(live=make_refused(make_deployment(pods=0), FORBIDDEN, "False"))

    assert said(now, ConditionType.READY) == ("False", "PodsStarting")
    assert said(now, ConditionType.PROGRESSING) == ("True", "RollingOut")
