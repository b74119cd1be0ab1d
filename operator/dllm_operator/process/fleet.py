"""Pods of every pool, whether it went back, and conditions of every resource, as series of the leader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dllm_server.metric import gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dllm_operator.api.v1alpha1 import ConditionType
from dllm_operator.cluster.cluster_view import ClusterView, owner_of
from dllm_operator.cluster.labels import POOL
from dllm_operator.planning.rollout_record import record_of
from dllm_operator.reporting.failures import is_serving

LABELS = ("namespace", "name", "pool")
CONDITION_LABELS = ("namespace", "name", "type", "status", "reason")
POOL_CONDITION_LABELS = ("namespace", "name", "pool", "type", "status", "reason")
_WANTED = gauge("dllm_operator_pool_wanted_pods", "Pods that a pool should have.", LABELS)
_READY = gauge("dllm_operator_pool_ready_pods", "Pods of a pool that serve.", LABELS)
_BACK = gauge(
    "dllm_operator_pool_rolled_back",
    "Whether a pool went back from a rollout that nobody asked for.",
    LABELS,
)
_CONDITION = gauge("dllm_operator_condition", "1 for how a condition stands.", CONDITION_LABELS)
_POOL_CONDITION = gauge(
    "dllm_operator_pool_condition", "1 for how a condition of a pool stands.", POOL_CONDITION_LABELS
)
FLEET_FAMILIES = (_WANTED, _READY, _BACK, _CONDITION, _POOL_CONDITION)


class FleetCollector(Collector):
    """Counted from the cluster view at each scrape, so that a deleted resource leaves no series behind."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        yield from self._pods()
        yield from self._conditions()

    def _pods(self) -> Iterator[Metric]:
        wanted: dict[tuple[str, ...], float] = {}
        ready: dict[tuple[str, ...], float] = {}
        back: dict[tuple[str, ...], float] = {}
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
            wanted[labels] = live["spec"].get("replicas", 1)
            ready[labels] = serving[owner, pool]
            record = record_of(live)
            back[labels] = record is not None and record.undone is not None
        yield _WANTED.of(wanted)
        yield _READY.of(ready)
        yield _BACK.of(back)

    def _conditions(self) -> Iterator[Metric]:
        """One series a condition, whose labels say how it stands, as the status was last written."""
        of_resources: dict[tuple[str, ...], float] = {}
        of_pools: dict[tuple[str, ...], float] = {}
        for key, resource in list(self._view.resources.objects.items()):
            status = resource.get("status", {})
            for condition in status.get("conditions", ()):
                said = (condition["type"], condition["status"], condition["reason"])
                of_resources[*key, *said] = 1
            for pool in status.get("pools", ()):
                if (tuning := pool.get("tuning")) is not None:
                    said = (
                        ConditionType.TUNING_CONVERGED,
                        str(tuning.get("converged", False)),
                        tuning["reason"],
                    )
                    of_pools[*key, pool["name"], *said] = 1
        yield _CONDITION.of(of_resources)
        yield _POOL_CONDITION.of(of_pools)
