"""Pods of every pool, whether it went back, and conditions of every resource, as series of the leader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.cluster.cluster_view import ClusterView, owner_of
from dllm_operator.cluster.labels import POOL
from dllm_operator.planning.rollout_record import record_of
from dllm_operator.reporting.failures import is_serving

LABELS = ("namespace", "name", "pool")
CONDITION_LABELS = ("namespace", "name", "type", "status", "reason")
POOL_CONDITION_LABELS = ("namespace", "name", "pool", "type", "status", "reason")


class FleetCollector(Collector):
    """Counted from the cluster view at each scrape, so that a deleted resource leaves no series behind."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._pods()
        yield from self._conditions()

    def _pods(self) -> Iterator[GaugeMetricFamily]:
        wanted = GaugeMetricFamily(
            "dllm_operator_pool_wanted_pods", "Pods that a pool should have.", labels=LABELS
        )
        ready = GaugeMetricFamily(
            "dllm_operator_pool_ready_pods", "Pods of a pool that serve.", labels=LABELS
        )
        back = GaugeMetricFamily(
            "dllm_operator_pool_rolled_back",
            "Whether a pool went back from a rollout that nobody asked for.",
            labels=LABELS,
        )
        serving = Counter(
            (owner_of(pod), pod["metadata"]["labels"].get(POOL))
            for pod in list(self._view.pods.objects.values())
            if is_serving(pod)
        )
        for live in list(self._view.children["Deployment"].objects.values()):
            owner, pool = owner_of(live), live["metadata"].get("labels", {}).get(POOL)
            if owner is None or pool is None:
                continue
            labels = (*owner, pool)
            wanted.add_metric(labels, live["spec"].get("replicas", 1))
            ready.add_metric(labels, serving[owner, pool])
            record = record_of(live)
            back.add_metric(labels, record is not None and record.undone is not None)
        yield wanted
        yield ready
        yield back

    def _conditions(self) -> Iterator[GaugeMetricFamily]:
        """One series a condition, whose labels say how it stands, as the status was last written."""
        of_resources = GaugeMetricFamily(
            "dllm_operator_condition", "1 for how a condition stands.", labels=CONDITION_LABELS
        )
        of_pools = GaugeMetricFamily(
            "dllm_operator_pool_condition",
            "1 for how a condition of a pool stands.",
            labels=POOL_CONDITION_LABELS,
        )
        for key, resource in list(self._view.resources.objects.items()):
            status = resource.get("status", {})
            for condition in status.get("conditions", ()):
                said = (condition["type"], condition["status"], condition["reason"])
                of_resources.add_metric((*key, *said), 1)
            for pool in status.get("pools", ()):
                if (tuning := pool.get("tuning")) is not None:
                    said = (
                        ConditionType.TUNING_CONVERGED,
                        str(tuning.get("converged", False)),
                        tuning["reason"],
                    )
                    of_pools.add_metric((*key, pool["name"], *said), 1)
        yield of_resources
        yield of_pools
