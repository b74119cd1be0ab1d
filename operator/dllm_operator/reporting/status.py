"""(resource, plan, observed) -> status: conditions, pools, endpoint. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_operator.api.v1alpha1 import ConditionType, TuningMode
from dllm_operator.cluster.labels import POOL, pod_selector
from dllm_operator.cluster.observe import Manifest, Observed
from dllm_operator.cluster.placement import why_unplaced
from dllm_operator.cluster.resource import Resource
from dllm_operator.planning.door import is_scaled_here, live_doors
from dllm_operator.planning.plan import Plan, PoolPlan
from dllm_operator.planning.rollout import Progress, awaiting_room, progress
from dllm_operator.reporting.conditions import AnyReason, Condition
from dllm_operator.reporting.door_condition import door_ready
from dllm_operator.reporting.failures import (
    Failure,
    is_serving,
    pods_refused,
    worst,
    worst_failure,
)
from dllm_operator.reporting.reason import ConditionReason, FailureReason
from dllm_operator.reporting.rollout import (
    followers,
    paused,
    queued,
    rolled_back,
    rollout_blocked,
    stopped,
)
from dllm_operator.reporting.scaling_condition import scaling_active
from dllm_operator.reporting.stages import has_lapsed, starting
from dllm_operator.reporting.tuning_condition import tuned_budgets, tuning_converged


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool's Deployment as its controller last counted it. ``wanted`` pods, of which ``updated`` run the
    newest template and ``ready`` (of any template) serve."""

    name: str
    wanted: int
    pods: int
    ready: int
    updated: int
    is_observed: bool
    deadline_seconds: int | None = None  # that is over
    product: str | None = None
    memory_mib: int | None = None
    gpus_per_replica: int = 0
    tuning: Mapping[str, Any] | None = None  # as the status says it

    @property
    def is_settled(self) -> bool:
        return self.is_observed and self.pods == self.ready == self.updated == self.wanted


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the children are not as planned."""

    reason: ConditionReason
    message: str


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the conditions are made of. ``error`` is what stopped this reconcile, ``blocked`` why a
    rollout cannot go on. ``promised`` pods have no node yet, and one that others make room on."""

    resource: Resource
    plan: Plan | None
    pools: tuple[PoolState, ...]
    failure: Failure | None
    pods: tuple[Manifest, ...]
    error: Obstacle | None = None
    blocked: str | None = None
    promised: frozenset[str] = frozenset()
    door: Condition | None = None  # None where there is no front door
    scaling: Condition | None = None  # None where the operator does not scale

    @property
    def wanted(self) -> int:
        return sum(pool.wanted for pool in self.pools)

    @property
    def ready(self) -> int:
        return sum(pool.ready for pool in self.pools)

    @property
    def is_scaled_to_zero(self) -> bool:
        return bool(self.pools) and self.wanted == 0 and not self.pods


def situation(resource: Resource, plan: Plan | None, observed: Observed, error: Obstacle | None) -> Situation:
    """Without a plan (an invalid spec) the pools that exist are reported."""
    deployments = observed.deployments()
    serving = Counter(pod["metadata"]["labels"].get(POOL) for pod in observed.pods if is_serving(pod))
    if plan is not None:
        pools = tuple(
            _planned_pool(pool, deployments.get(pool.deployment), serving[pool.name]) for pool in plan.pools
        )
    else:
        written = {pool["name"]: pool.get("tuning") for pool in resource.status.get("pools", ())}
        pools = tuple(_existing_pool(body, serving, written) for _, body in sorted(deployments.items()))
    promised = _promised(observed)
    pods = tuple(pod for pod in observed.pods if pod["metadata"]["name"] not in promised)
    of_pods = worst_failure(pods, observed.lost_nodes, observed.at)
    refused = [pods_refused(live) for live in deployments.values()]
    failure = worst(each for each in (of_pods, *refused) if each is not None)
    blocked = rollout_blocked(plan.pools, observed) if plan is not None else None
    door = None
    if plan is not None and plan.door is not None:
        door = door_ready(plan.door, live_doors(resource.name, observed))
    is_scaled = resource.spec is not None and is_scaled_here(resource.spec)
    scaling = scaling_active(observed.scaling) if is_scaled else None
    return Situation(resource, plan, pools, failure, observed.pods, error, blocked, promised, door, scaling)


def conditions(now: Situation) -> list[Condition]:
    """In the order users read them."""
    optional = [condition for condition in (now.door, now.scaling) if condition is not None]
    return [
        _ready(now),
        _progressing(now),
        _spec_valid(now),
        _pools_scheduled(now),
        _tuning_converged(now),
        _integrations_ready(now),
        *optional,
    ]


def status_fields(now: Situation) -> dict[str, Any]:
    """Status without its conditions."""
    resource = now.resource
    selector = ",".join(f"{name}={value}" for name, value in pod_selector(resource.name).items())
    fields: dict[str, Any] = {
        "observedGeneration": resource.generation,
        "replicas": sum(pool.pods for pool in now.pools),
        "readyReplicas": now.ready,
        "gpus": sum(pool.pods * pool.gpus_per_replica for pool in now.pools),
        "selector": selector,
        "pools": [_pool_fields(pool) for pool in now.pools],
    }
    if now.plan is not None and (tuned := tuned_budgets(now.plan.pools)):
        fields["tuned"] = tuned
    if resource.spec is not None:
        fields["url"] = f"http://{resource.name}.{resource.namespace}.svc:{resource.spec.networking.port}"
    elif "url" in resource.status:
        fields["url"] = resource.status["url"]
    return fields


def _ready(now: Situation) -> Condition:
    counts = f"{now.ready} of {now.wanted} pods are ready"
    if now.door is not None and now.door.reason is ConditionReason.DOOR_NOT_READY:
        return Condition(ConditionType.READY, False, now.door.reason, now.door.message)
    if now.wanted > 0 and all(pool.ready >= pool.wanted for pool in now.pools):
        return Condition(ConditionType.READY, True, ConditionReason.PODS_READY, counts)
    reason: AnyReason
    if now.failure is not None:
        reason, message = now.failure.reason, f"{counts}; {now.failure}"
    elif now.error is not None:
        reason, message = now.error.reason, now.error.message
    elif now.resource.spec is None and not now.pools:
        reason, message = ConditionReason.INVALID_SPEC, "nothing was started"
    elif not now.pools:
        reason, message = ConditionReason.NO_GPU_NODES, NO_GPU_NODES
    elif now.wanted == 0:
        reason, message = ConditionReason.SCALED_TO_ZERO, NO_PODS
    else:
        stage = starting(now.pods)
        reason = ConditionReason.PODS_NOT_READY if has_lapsed(now.pods) else ConditionReason.PODS_STARTING
        message = f"{counts}; {stage}" if stage else counts
    return Condition(ConditionType.READY, False, reason, message)


def _progressing(now: Situation) -> Condition:
    kind, unsettled = ConditionType.PROGRESSING, [pool for pool in now.pools if not pool.is_settled]
    planned = now.plan.pools if now.plan is not None else ()
    if now.error is not None:
        return Condition(kind, False, now.error.reason, now.error.message)
    back = rolled_back(planned)
    if back is not None:
        return Condition(kind, False, ConditionReason.ROLLED_BACK, back)
    late = next((pool for pool in now.pools if pool.deadline_seconds is not None), None)
    if unsettled and now.blocked is not None:
        return Condition(kind, False, ConditionReason.ROLLOUT_BLOCKED, now.blocked)
    if unsettled and late is not None:
        why = f": {now.failure}" if now.failure is not None else ""
        message = f"pool {late.name}: new pods did not become ready within {late.deadline_seconds} s{why}"
        return Condition(kind, False, ConditionReason.DEADLINE_EXCEEDED, message + followers(planned))
    if unsettled and now.failure is not None:
        return Condition(kind, False, now.failure.reason, str(now.failure) + followers(planned))
    if unsettled:
        message = "; ".join(
            f"pool {pool.name}: {pool.updated} of {pool.wanted} pods updated, {pool.ready} ready"
            for pool in unsettled
        )
        return Condition(kind, True, ConditionReason.ROLLING_OUT, message + followers(planned))
    halt = stopped(planned, now.resource.namespace)
    if halt is not None:
        return Condition(kind, False, ConditionReason.ROLLOUT_STOPPED, halt)
    waiting = queued(planned)
    if waiting is not None:
        return Condition(kind, True, ConditionReason.ROLLOUT_QUEUED, waiting)
    if now.resource.spec is not None and now.resource.spec.rollout.pause:
        return Condition(kind, False, ConditionReason.PAUSED, paused(planned))
    return Condition(kind, False, ConditionReason.SETTLED, "every pool is as specified")


def _spec_valid(now: Situation) -> Condition:
    if now.resource.spec is None:
        message = "; ".join(now.resource.problems)
        return Condition(ConditionType.SPEC_VALID, False, ConditionReason.INVALID_SPEC, message)
    return Condition(ConditionType.SPEC_VALID, True, ConditionReason.VALID)


def _pools_scheduled(now: Situation) -> Condition:
    kind = ConditionType.POOLS_SCHEDULED
    if now.resource.spec is None and not now.pools:
        return Condition(kind, None, ConditionReason.INVALID_SPEC, "nothing was started")
    if not now.pools:
        return Condition(kind, False, ConditionReason.NO_GPU_NODES, NO_GPU_NODES)
    pending = [pod for pod in now.pods if _is_unscheduled(pod)]
    if pending:
        failure = worst_failure(pod for pod in pending if pod["metadata"]["name"] not in now.promised)
        if failure is not None and failure.reason is FailureReason.UNSCHEDULABLE:
            pools = sorted({pod["metadata"]["labels"].get(POOL, "") for pod in pending})
            return Condition(kind, False, FailureReason.UNSCHEDULABLE, f"pool {', '.join(pools)}: {failure}")
        return Condition(kind, None, ConditionReason.PODS_PENDING, f"{len(pending)} pods wait for a node")
    if any(pool.pods < pool.wanted for pool in now.pools):
        if now.failure is not None and now.failure.reason is FailureReason.PODS_REFUSED:
            return Condition(kind, False, now.failure.reason, str(now.failure))
        return Condition(kind, None, ConditionReason.PODS_PENDING, "pods are being created")
    if now.is_scaled_to_zero:
        return Condition(kind, True, ConditionReason.SCALED_TO_ZERO, NO_PODS)
    return Condition(kind, True, ConditionReason.PODS_SCHEDULED, "every pod has a node")


def _tuning_converged(now: Situation) -> Condition:
    kind = ConditionType.TUNING_CONVERGED
    if now.resource.spec is None or now.plan is None:
        return Condition(kind, None, ConditionReason.INVALID_SPEC, "nothing is tuned meanwhile")
    if now.is_scaled_to_zero and now.resource.spec.tuning.mode is not TuningMode.OFF:
        return Condition(kind, None, ConditionReason.SCALED_TO_ZERO, NO_PODS)
    return tuning_converged(now.resource.spec.tuning.mode, now.plan.pools)


def _integrations_ready(now: Situation) -> Condition:
    kind = ConditionType.INTEGRATIONS_READY
    if now.plan is None or not (now.plan.missing_kinds or now.plan.integrations):
        return Condition(kind, True, ConditionReason.NOT_REQUESTED, "no integration is asked for")
    if now.plan.missing_kinds:
        missing = ", ".join(now.plan.missing_kinds)
        message = f"{missing}: the CRD is not installed; install it or drop the field that asks for it"
        return Condition(kind, False, ConditionReason.CRD_MISSING, message)
    return Condition(kind, True, ConditionReason.CREATED, ", ".join(sorted(now.plan.integrations)))


NO_PODS = "no pods are wanted"
NO_GPU_NODES = (
    "no node carries the label nvidia.com/gpu.product: install GPU feature discovery, name gpuPools with a "
    "nodeSelector, or set device: cpu"
)


def _planned_pool(pool: PoolPlan, live: Manifest | None, serving: int) -> PoolState:
    wanted = pool.replicas
    if wanted is None:
        wanted = int((live or {}).get("spec", {}).get("replicas", pool.initial_replicas))
    pods, updated, is_observed = _counts(live)
    return PoolState(
        pool.name,
        wanted,
        pods,
        serving,
        updated,
        is_observed,
        _missed_deadline(live),
        pool.product,
        pool.memory_mib,
        pool.gpus_per_replica,
        pool.tuning.status().manifest() if pool.tuning is not None else None,
    )


def _existing_pool(
    live: Manifest, serving: Mapping[str, int], written: Mapping[str, Mapping[str, Any] | None]
) -> PoolState:
    name = live["metadata"]["labels"].get(POOL, live["metadata"]["name"])
    pods, updated, is_observed = _counts(live)
    wanted = int(live["spec"].get("replicas", 1))
    late = _missed_deadline(live)
    return PoolState(
        name, wanted, pods, serving.get(name, 0), updated, is_observed, late, tuning=written.get(name)
    )


def _missed_deadline(live: Manifest | None) -> int | None:
    """Seconds within which no new pod became ready; None where it is not over."""
    if live is None or progress(live) is not Progress.LATE:
        return None
    seconds: int = live["spec"].get("progressDeadlineSeconds", 600)  # Kubernetes' own
    return seconds


def _counts(live: Manifest | None) -> tuple[int, int, bool]:
    """Pods, pods of the newest template, and whether the Deployment's controller has seen its newest spec."""
    if live is None:
        return 0, 0, False
    status = live.get("status", {})
    is_observed = status.get("observedGeneration", 0) >= live["metadata"].get("generation", 0)
    return int(status.get("replicas", 0)), int(status.get("updatedReplicas", 0)), is_observed


def _pool_fields(pool: PoolState) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": pool.name,
        "replicas": pool.pods,
        "readyReplicas": pool.ready,
        "gpus": pool.pods * pool.gpus_per_replica,
    }
    optional = {"product": pool.product, "memoryMib": pool.memory_mib, "tuning": pool.tuning}
    return fields | {name: value for name, value in optional.items() if value is not None}


def _promised(observed: Observed) -> frozenset[str]:
    """Pods without a node that get one when others of their pool, on their way out, are gone."""
    pools = {pod["metadata"]["labels"].get(POOL, "") for pod in observed.pods}
    late = {pod["metadata"]["name"] for pool in pools for pod in awaiting_room(observed.pods_of(pool))}
    return frozenset(pod["metadata"]["name"] for pod in observed.pods if why_unplaced(pod)) - late


def _is_unscheduled(pod: Manifest) -> bool:
    return "deletionTimestamp" not in pod["metadata"] and not pod.get("spec", {}).get("nodeName")
