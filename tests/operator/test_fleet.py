from __future__ import annotations

from dllm_operator.cluster.cluster_view import ClusterView
from dllm_operator.planning.rollout_record import Cause, RolloutRecord, Undone, with_record
from dllm_operator.process.fleet import LABELS, FleetCollector
from dllm_operator.process.telemetry import OperatorMetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.operator.objects import NAME, NAMESPACE, make_deployment, make_pod


def read(metrics: OperatorMetrics) -> dict[tuple[str, ...], float]:
    return {
        (
            sample.name.removeprefix("dllm_operator_pool_"),
            *(sample.labels[label] for label in LABELS),
        ): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name.startswith("dllm_operator_pool_")
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
