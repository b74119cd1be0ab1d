"""Wanted and ready pods of every pool, and whether it went back, as series of the operator that leads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dllm_operator.cluster.cluster_view import ClusterView, owner_of
from dllm_operator.cluster.labels import POOL
from dllm_operator.planning.rollout_record import record_of
from dllm_operator.reporting.failures import is_serving

LABELS = ("namespace", "name", "pool")


class FleetCollector(Collector):
    """Counted from the cluster view at each scrape, so that a deleted resource leaves no series behind."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[GaugeMetricFamily]:
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
