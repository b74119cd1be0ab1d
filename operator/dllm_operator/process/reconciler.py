"""One resource, brought to what its spec says: observe, plan, render, apply, prune, status."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dllm_operator.api.v1alpha1 import API_VERSION, KIND
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.kinds import RESOURCE
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.observe import ChildKey
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import Plan
from dllm_operator.planning.planner import Planner
from dllm_operator.render import PodDefaults, render
from dllm_operator.render.pod import tuning_name
from dllm_operator.reporting.announce import announce
from dllm_operator.reporting.conditions import NAME_CONFLICT, merge_conditions, transitions
from dllm_operator.reporting.status import APPLY_FAILED, Obstacle, conditions, situation, status_fields
from dllm_operator.reporting.tuning_condition import tuning_events
from dllm_operator.writing.apply import Applier, Outcome

STATUS_MANAGER = "dllm-operator-status"


class ReconcileError(Exception):
    """Something was refused; the status says what, and the key is tried again."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Level-based: what it does depends on the cluster as it is, not on the event that woke it."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        planner: Planner,
        defaults: PodDefaults,
        instance: str,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kube = kube
        self._view = view
        self._planner = planner
        self._defaults = defaults
        self._instance = instance
        self._now = now
        self._applier = Applier(kube, view)

    async def reconcile(self, key: ResourceKey) -> None:
        """``ReconcileError`` and ``KubeError`` ask for another try later."""
        body = self._view.resources.objects.get(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return
        resource = Resource.parse(body)
        planned = self._planner.plan(resource, resource.spec) if resource.spec is not None else None
        if planned is not None and planned.problem is not None:
            resource, planned = resource.refused(planned.problem), None
        obstacle, retry = None, ""
        if resource.spec is not None and planned is not None:
            manifests = render(resource, resource.spec, planned, self._defaults)
            outcome = await self._applier.sync(resource, manifests, planned.pools)
            obstacle, retry = _obstacle(outcome), "; ".join(outcome.all_problems)
            planned = self._with_edits(resource, planned, outcome.restored)
            if outcome.invalid:
                resource, planned, obstacle = resource.refused("; ".join(outcome.invalid)), None, None
        await self._report(resource, planned, obstacle)
        if retry:
            raise ReconcileError(retry)

    async def _report(self, resource: Resource, planned: Plan | None, error: Obstacle | None) -> None:
        """Write the status if it says anything new, then announce what changed."""
        observed = replace(self._view.observe(resource), at=self._now())
        current = situation(resource, planned, observed, error)
        wanted = conditions(current)
        previous = resource.status.get("conditions", ())
        status: dict[str, Any] = status_fields(current) | {
            "conditions": merge_conditions(previous, wanted, resource.generation, self._now())
        }
        if status == resource.status:
            return
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": resource.name, "namespace": resource.namespace, "uid": resource.uid},
            "status": status,
        }
        try:
            written = await self._kube.apply(
                RESOURCE, manifest, subresource="status", field_manager=STATUS_MANAGER
            )
        except KubeError as refused:
            if refused.is_not_found or refused.status == 409:  # deleted, or made anew, meanwhile
                return
            raise
        self._view.resources.put(written)
        news = transitions(previous, wanted)
        if planned is not None:
            news += tuning_events(resource.status, planned.pools)
        await announce(self._kube, resource, news, self._now(), self._instance)

    def _with_edits(self, resource: Resource, planned: Plan, restored: Collection[ChildKey]) -> Plan:
        """The plan with the newest tunings, where tuning ConfigMaps that others had edited are noted."""
        names = {key.name for key in restored if key.kind == "ConfigMap"}
        newest, pools = self._planner.book.of(resource), []
        for pool in planned.pools:
            tuning = newest.get(pool.name) if pool.tuning is not None else None
            if tuning is not None and tuning_name(resource.name, pool.name) in names:
                tuning = replace(tuning, edited_at=self._now().replace(microsecond=0))
                self._planner.book.put(resource, pool.name, tuning)
            pools.append(replace(pool, tuning=tuning))
        return replace(planned, pools=tuple(pools))


def _obstacle(outcome: Outcome) -> Obstacle | None:
    """Why the children are not as planned; what else has been refused is told after it is out of the way."""
    if outcome.in_the_way:
        return Obstacle(NAME_CONFLICT, "; ".join(outcome.in_the_way))
    return Obstacle(APPLY_FAILED, "; ".join(outcome.problems)) if outcome.problems else None
