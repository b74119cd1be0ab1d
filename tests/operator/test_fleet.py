from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.planning.rollout_record import Cause, RolloutRecord, Undone, with_record
from dllm_operator.process.fleet import CONDITION_LABELS, LABELS, POOL_CONDITION_LABELS, FleetCollector
from dllm_operator.process.telemetry import OperatorMetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.operator.objects import NAME, NAMESPACE, make_body, make_deployment, make_pod


def read(metrics: OperatorMetrics, labels: Sequence[str] = LABELS) -> dict[tuple[str, ...], float]:
    """Values by the name's own part and the labels, of the series that have these labels."""
    return {
        (
            sample.name.removeprefix("dllm_operator_").removeprefix("pool_"),
            *(sample.labels[label] for label in labels),
        ): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if set(sample.labels) == set(labels)
    }


def test_the_operator_tells_wanted_and_ready_pods_of_every_pool_while_it_exists() -> None:
    view, metrics = ClusterView(), OperatorMetrics()
    metrics.collect(FleetCollector(view))
    assert read(metrics) == {}

    undone = RolloutRecord("old", "a", "", undone=Undone("new", Cause.RELEASE, "r2"))
    first, second = make_deployment("l40s", replicas=3), make_deployment("l4", replicas=0)
    first = with_record(first, undone)
    for live in (first, second):
        view.children["Deployment"].put(live)
    for number, is_ready in enumerate((True, True, False)):
        view.pods.put(make_pod(name=f"chat-l40s-{number}", is_ready=is_ready))

    assert read(metrics) == {
        ("wanted_pods", NAMESPACE, NAME, "l40s"): 3,
        ("ready_pods", NAMESPACE, NAME, "l40s"): 2,
        ("rolled_back", NAMESPACE, NAME, "l40s"): 1,
        ("rolled_back", NAMESPACE, NAME, "l4"): 0,
        ("wanted_pods", NAMESPACE, NAME, "l4"): 0,
        ("ready_pods", NAMESPACE, NAME, "l4"): 0,
    }

    view.children["Deployment"].drop(first)
    assert {labels[-1] for labels in read(metrics)} == {"l4"}


def make_status(reason: str, status: str = "False", tuned: str | None = None) -> dict[str, Any]:
    tuning = {} if tuned is None else {"tuning": {"reason": tuned, "converged": tuned == "Converged"}}
    return {
        "conditions": [
            {"type": "Ready", "status": status, "reason": reason, "message": "1 of 2: pod chat-x is late"},
            {"type": "SpecValid", "status": "True", "reason": "Valid", "message": ""},
        ],
        "pools": [{"name": "l4"} | tuning],
    }


def test_the_operator_tells_how_every_condition_stands_while_the_resource_exists() -> None:
    view, metrics = ClusterView(), OperatorMetrics()
    metrics.collect(FleetCollector(view))
    assert read(metrics, CONDITION_LABELS) == {}

    view.resources.put(make_body())  # seen, and not reconciled yet
    assert read(metrics, CONDITION_LABELS) == {}
    view.resources.put(make_body(generation=2) | {"status": make_status("OOMKilled", tuned="RolledBack")})

    assert read(metrics, CONDITION_LABELS) == {
        ("condition", NAMESPACE, NAME, "Ready", "False", "OOMKilled"): 1,
        ("condition", NAMESPACE, NAME, "SpecValid", "True", "Valid"): 1,
    }
    assert read(metrics, POOL_CONDITION_LABELS) == {
        ("condition", NAMESPACE, NAME, "l4", "TuningConverged", "False", "RolledBack"): 1
    }

    view.resources.put(make_body(generation=3) | {"status": make_status("AllReplicasReady", "True")})
    assert {labels[3:] for labels in read(metrics, CONDITION_LABELS)} == {
        ("Ready", "True", "AllReplicasReady"),
        ("SpecValid", "True", "Valid"),
    }
    assert read(metrics, POOL_CONDITION_LABELS) == {}

    view.resources.drop(make_body())
    assert read(metrics, CONDITION_LABELS) == {}
