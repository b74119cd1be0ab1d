"""One resource, brought to what its spec says: observe, plan, render, apply, prune, status."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import structlog

from dllm_operator.api.v1alpha1 import API_VERSION, KIND, DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.kinds import DEPLOYMENT, RESOURCE
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.observe import ChildKey, Manifest
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.plan import Plan
from dllm_operator.planning.planner import Planner
from dllm_operator.planning.rollout_record import record_of, with_record
from dllm_operator.planning.turns import Step, Verdict
from dllm_operator.process.rollouts import Rollouts
from dllm_operator.render import PodDefaults, render
from dllm_operator.render.pod import tuning_name
from dllm_operator.reporting.announce import announce
from dllm_operator.reporting.conditions import NAME_CONFLICT, merge_conditions, transitions
from dllm_operator.reporting.status import APPLY_FAILED, Obstacle, conditions, situation, status_fields
from dllm_operator.reporting.tuning_condition import tuning_events
from dllm_operator.writing.apply import Applier, Outcome
from dllm_operator.writing.former import former_template, with_template

log = structlog.get_logger(__name__)

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
        rollouts: Rollouts,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kube = kube
        self._view = view
        self._planner = planner
        self._defaults = defaults
        self._instance = instance
        self._rollouts = rollouts
        self._now = now
        self._applier = Applier(kube, view)

    async def reconcile(self, key: ResourceKey) -> None:
        """``ReconcileError`` and ``KubeError`` ask for another try later."""
        try:
            await self._reconcile(key)
        finally:
            self._rollouts.wake_next()  # a turn may be free, of a resource that is gone as well

    async def _reconcile(self, key: ResourceKey) -> None:
        body = self._view.resources.objects.get(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._rollouts.forget(key)
            return
        resource = Resource.parse(body)
        planned = self._planner.plan(resource, resource.spec) if resource.spec is not None else None
        if planned is not None and planned.problem is not None:
            resource, planned = resource.refused(planned.problem), None
        obstacle, retry = None, ""
        if resource.spec is not None and planned is not None:
            planned, outcome = await self._write(resource, resource.spec, planned)
            obstacle, retry = _obstacle(outcome), "; ".join(outcome.all_problems)
            if outcome.invalid:
                resource, planned, obstacle = resource.refused("; ".join(outcome.invalid)), None, None
        else:
            self._rollouts.forget(key)
        await self._report(resource, planned, obstacle)
        if retry:
            raise ReconcileError(retry)

    async def _write(
        self, resource: Resource, spec: DLLMDeploymentSpec, planned: Plan
    ) -> tuple[Plan, Outcome]:
        """Children as far as it is their turn; the plan with what became of that."""
        manifests = render(resource, spec, planned, self._defaults)
        steps = self._rollouts.decide(resource, spec, planned.pools, manifests)
        try:
            kept = [await self._with_step(manifest, steps) for manifest in manifests]
            is_settled = self._rollouts.is_settled(resource, steps)
            outcome = await self._applier.sync(resource, kept, planned.pools, is_settled=is_settled)
        finally:
            self._rollouts.written(resource.namespace, steps)
        pools = tuple(replace(pool, step=steps[pool.deployment]) for pool in planned.pools)
        return self._with_edits(resource, replace(planned, pools=pools), outcome.restored), outcome

    async def _with_step(self, manifest: Manifest, steps: dict[str, Step]) -> Manifest:
        """A Deployment with the template that it may have now, and with its record."""
        name = manifest["metadata"]["name"]
        if manifest["kind"] != DEPLOYMENT.kind:
            return manifest
        live = self._view.children[DEPLOYMENT.kind].objects.get((manifest["metadata"]["namespace"], name))
        step = steps[name]
        if live is not None and step.verdict.is_held:
            manifest = with_template(manifest, live["spec"]["template"])
        elif live is not None and step.verdict is Verdict.BACK:
            record = record_of(live)
            former = await former_template(self._kube, live, record.good_revision) if record else None
            if former is None:
                log.warning("no former template to go back to", name=name)
                step = steps[name] = Step(Verdict.APPLY, record)
            else:
                manifest = with_template(manifest, former)
                log.warning("rolling back", name=name, undone=step.record.undone if step.record else None)
        return manifest if step.record is None else with_record(manifest, step.record)

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
