"""One resource, brought to what its spec says: observe, plan, render, apply, prune, status."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import structlog
from dllm_server.tracing import stage

from dllm_operator.api.v1alpha1 import ConditionType, DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.kinds import DEPLOYMENT
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.observe import ChildKey, Manifest
from dllm_operator.cluster.resource import Resource, manager_of
from dllm_operator.planning.plan import Plan
from dllm_operator.planning.planner import Planner
from dllm_operator.planning.rollout_record import record_of, with_record
from dllm_operator.planning.turns import Step, Verdict
from dllm_operator.process.edits import edit_news
from dllm_operator.process.rollouts import Rollouts
from dllm_operator.render import PodDefaults, render
from dllm_operator.render.pod import tuning_name
from dllm_operator.reporting.announce import announce
from dllm_operator.reporting.conditions import Transition, merge_conditions, transitions
from dllm_operator.reporting.fault import fault_conditions, fault_status, place_of
from dllm_operator.reporting.reason import ConditionReason, NewsReason
from dllm_operator.reporting.status import Obstacle, conditions, situation, status_fields
from dllm_operator.reporting.tuning_condition import tuning_events
from dllm_operator.writing.apply import Applier, Outcome
from dllm_operator.writing.claim import Claims
from dllm_operator.writing.former import former_template, with_template
from dllm_operator.writing.resource_status import write_status

log = structlog.get_logger(__name__)

UNACCEPTABLE = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY)
CHANGED_SECONDS = 1.0  # by then the watch tells what has changed
OWNER_SECONDS = 10.0  # between two looks at the Lease of another operator


class ReconcileError(Exception):
    """Something was refused; the status says what, and the key is tried again."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class ReconcileObserver:
    """What a reconciler tells its metrics; this one ignores it."""

    def internal_error(self, where: str) -> None:
        """An exception that nobody expected."""

    def left(self, resources: int) -> None:
        """How many are left to other operators now."""


@dataclass(frozen=True, slots=True)
class Design:
    """What should be; nothing for a spec that makes no sense."""

    resource: Resource
    planned: Plan | None = None
    manifests: tuple[Manifest, ...] = ()


class Reconciler:
    """Level-based: what it does depends on the cluster as it is, not on the event that woke it."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        planner: Planner,
        defaults: PodDefaults,
        claims: Claims,
        instance: str,
        rollouts: Rollouts,
        now: Callable[[], datetime] = utc_now,
        observe: ReconcileObserver | None = None,
    ) -> None:
        self._kube = kube
        self._view = view
        self._planner = planner
        self._defaults = defaults
        self._instance = instance
        self._claims = claims
        self._rollouts = rollouts
        self._now = now
        self._observe = observe or ReconcileObserver()
        self._left: dict[ResourceKey, tuple[str, int, str]] = {}  # uid, generation and owner as told
        self._applier = Applier(kube, view)

    async def reconcile(self, key: ResourceKey) -> float | None:
        """Seconds after which to look again, None where an event will tell. Any exception asks for another
        try later."""
        try:
            return await self._reconcile(key)
        finally:
            self._rollouts.wake_next()  # a turn may be free, of a resource that is gone as well

    async def _reconcile(self, key: ResourceKey) -> float | None:
        body = self._view.resources.objects.get(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._rollouts.forget(key)
            return None
        held = await self._claims.hold(body)
        if held is None:
            self._rollouts.forget(key)
            return await self._leave(key)
        self._left.pop(key, None)
        self._observe.left(len(self._left))
        design = None
        try:
            with stage("design"):
                design = self._design(held)
            return await self._carry_out(held, design)
        except (ReconcileError, OSError):  # the status tells, or the API server cannot be reached
            raise
        except KubeError as error:
            if error.status not in UNACCEPTABLE:
                raise
            await self._confess(held, error, is_designed=True)
            raise
        except Exception as error:
            self._rollouts.forget(key)
            await self._confess(held, error, is_designed=design is not None)
            raise

    def _design(self, body: Manifest) -> Design:
        resource = Resource.parse(body)
        planned = self._planner.plan(resource, resource.spec) if resource.spec is not None else None
        if planned is not None and planned.problem is not None:
            resource, planned = resource.refused(planned.problem), None
        if resource.spec is None or planned is None:
            return Design(resource)
        return Design(resource, planned, render(resource, resource.spec, planned, self._defaults))

    async def _carry_out(self, body: Manifest, design: Design) -> float | None:
        resource, planned, obstacle, retry = design.resource, design.planned, None, ""
        if resource.spec is not None and planned is not None:
            with stage("write"):
                planned, outcome = await self._write(resource, resource.spec, planned, design.manifests)
            await announce(self._kube, body, edit_news(outcome.edits), self._now(), self._instance)
            obstacle, retry = _obstacle(outcome), "; ".join(outcome.all_problems)
            if outcome.invalid:
                resource, planned, obstacle = resource.refused("; ".join(outcome.invalid)), None, None
        else:
            self._rollouts.forget((resource.namespace, resource.name))
        with stage("report"):
            is_written = await self._report(body, resource, planned, obstacle)
        if retry:
            raise ReconcileError(retry)
        return None if is_written else CHANGED_SECONDS

    async def _write(
        self, resource: Resource, spec: DLLMDeploymentSpec, planned: Plan, manifests: tuple[Manifest, ...]
    ) -> tuple[Plan, Outcome]:
        """Children as far as it is their turn; the plan with what became of that."""
        steps = self._rollouts.decide(resource, spec, planned.pools, manifests)
        try:
            kept = [await self._with_step(manifest, steps) for manifest in manifests]
            is_settled = self._rollouts.is_settled(resource, steps)
            outcome = await self._applier.sync(resource, kept, planned.pools, is_settled=is_settled)
        except KubeError as refused:  # to be asked at all
            outcome = Outcome(problems=(str(refused),))
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
        step = steps.get(name)
        if step is None:  # no pool's: the front door's template changes at once
            return manifest
        if live is not None and step.verdict.is_held:
            manifest = with_template(manifest, live["spec"]["template"])
        elif live is not None and step.verdict is Verdict.BACK:
            record = record_of(live)
            former = await former_template(self._kube, live, record.good_revision) if record else None
            if former is None:
                log.warning(
                    "no former template to go back to", namespace=live["metadata"]["namespace"], name=name
                )
                step = steps[name] = Step(Verdict.APPLY, record)
            else:
                manifest = with_template(manifest, former)
                undone = step.record.undone if step.record else None
                log.warning("rolling back", namespace=live["metadata"]["namespace"], name=name, undone=undone)
        return manifest if step.record is None else with_record(manifest, step.record)

    async def _report(
        self, body: Manifest, resource: Resource, planned: Plan | None, error: Obstacle | None
    ) -> bool:
        """Write the status if it says anything new, then announce what changed. False where the resource has
        changed meanwhile."""
        observed = replace(self._planner.observe(resource), at=self._now())
        current = situation(resource, planned, observed, error)
        wanted = conditions(current)
        previous = resource.status.get("conditions", ())
        status: dict[str, Any] = status_fields(current) | {
            "managedBy": self._claims.manager,
            "conditions": merge_conditions(previous, wanted, resource.generation, self._now()),
        }
        try:
            written = await write_status(self._kube, self._view, body, status)
        except KubeError as refused:
            if refused.is_not_found or refused.status == HTTPStatus.CONFLICT:
                return False
            raise
        if written is body:
            return True
        news = transitions(previous, wanted)
        if planned is not None:
            news += tuning_events(resource.status, planned.pools)
        await announce(self._kube, body, news, self._now(), self._instance)
        return True

    async def _confess(self, body: Manifest, error: Exception, *, is_designed: bool) -> None:
        """Say in the status what went wrong, with as little as can be needed to say it."""
        metadata, status = body["metadata"], body.get("status") or {}
        key = f"{metadata['namespace']}/{metadata['name']}"
        log.error("internal error", key=key, place=place_of(error), exc_info=error)
        self._observe.internal_error("reconcile")
        wanted = fault_conditions(error, is_designed)
        try:
            faulty = fault_status(status, wanted, metadata["generation"], self._now())
            written = await write_status(self._kube, self._view, body, faulty)
            if written is not body:
                news = transitions(status.get("conditions", ()), wanted[:1])
                await announce(self._kube, body, news, self._now(), self._instance)
        except (KubeError, OSError) as refused:
            log.error("internal error not told", key=key, error=str(refused))

    async def _leave(self, key: ResourceKey) -> float | None:
        """To the operator that has claimed it; told once for each generation."""
        body = self._view.resources.objects.get(key)
        owner = manager_of(body) if body is not None else None
        if body is None or owner is None:
            return None
        told = (body["metadata"]["uid"], body["metadata"]["generation"], owner)
        if self._left.get(key) != told:
            known = set(self._view.resource_keys())
            self._left = {each: left for each, left in self._left.items() if each in known} | {key: told}
            self._observe.left(len(self._left))
            log.warning("managed by another operator", key=key, owner=owner)
            message = (
                f"the operator of Lease {owner} looks after this resource, and that of Lease "
                f"{self._claims.manager} leaves it alone: their namespaces overlap"
            )
            news = Transition(ConditionType.READY, NewsReason.MANAGED_BY_ANOTHER, message, is_warning=True)
            await announce(self._kube, body, [news], self._now(), self._instance)
        return OWNER_SECONDS

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
        return Obstacle(ConditionReason.NAME_CONFLICT, "; ".join(outcome.in_the_way))
    return Obstacle(ConditionReason.APPLY_FAILED, "; ".join(outcome.problems)) if outcome.problems else None
