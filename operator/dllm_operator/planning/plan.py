"""(spec, observed) -> which pools run, where, with how many pods and which engine settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dllm_server.settings import Device

from dllm_operator.api.v1alpha1 import AutoscalingSpec, DLLMDeploymentSpec, GpuPool, TuningMode
from dllm_operator.cluster.labels import child_name
from dllm_operator.cluster.observe import Integration, Observed
from dllm_operator.cluster.pools import GPU, PRODUCT, GpuType, find_type, normalise_product, pool_name
from dllm_operator.planning.claims import Mounted, Reach, claim_problem, narrowest
from dllm_operator.planning.door import DoorPlan, door_plan, limit_of, requests_at_once
from dllm_operator.planning.rollout import BESIDE, Strategy, choose
from dllm_operator.planning.turns import Step
from dllm_operator.tuning.pool_start import lasting_settings, pool_tuning, start_settings
from dllm_operator.tuning.profile import ProfileKey
from dllm_operator.tuning.record import PoolTuning

CPU_POOL = "cpu"
GPU_TOLERATION: dict[str, Any] = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One Deployment to be. ``replicas`` is None where an autoscaler owns the number, which it then has from
    ``initial_replicas``, what a Deployment is made with. ``tuning`` is what is known of the pool; engines are
    told of it only with ``is_tuned``. ``is_on_one_node``: all pods mount a volume that one node holds.
    ``step`` is what becomes of the pods' template, once that is rendered."""

    name: str
    deployment: str
    replicas: int | None = None
    initial_replicas: int = 1
    product: str | None = None
    memory_mib: int | None = None
    gpu_resource: str | None = None
    gpus_per_replica: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    engine: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    profile_key: ProfileKey | None = None
    tuning: PoolTuning | None = None
    is_tuned: bool = False
    strategy: Strategy = BESIDE
    is_on_one_node: bool = False
    step: Step | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """``missing_kinds`` are integrations asked for whose CRDs are not installed; with a ``problem`` nothing
    may be made of it."""

    pools: tuple[PoolPlan, ...]
    integrations: frozenset[Integration] = frozenset()
    missing_kinds: tuple[Integration, ...] = ()
    problem: str | None = None
    door: DoorPlan | None = None


def plan(name: str, spec: DLLMDeploymentSpec, observed: Observed) -> Plan:
    """What resource ``name`` wants on the cluster as observed."""
    pools = [
        (_with_tuning(pool, spec, observed), replicas) for pool, replicas in _pools(name, spec, observed)
    ]
    wanted = _integrations(spec)
    claim = narrowest(name, spec, observed.claims)
    placed = _with_rollout(_with_replicas(pools, spec, observed), spec, observed, claim)
    most = {pool.name: _most_pods(pool, spec) for pool in placed}
    fixed = spec.pod_template.rolling_update.numbers
    return Plan(
        pools=placed,
        integrations=frozenset(wanted) & observed.integrations,
        missing_kinds=tuple(kind for kind in wanted if kind not in observed.integrations),
        problem=claim_problem(claim, most, fixed[0] if fixed else 0),
        door=door_plan(name, spec, _door_limits(placed), most, observed),
    )


def _door_limits(pools: Sequence[PoolPlan]) -> dict[str, int]:
    return {
        pool.name: limit_of(requests_at_once(pool.tuning if pool.is_tuned else None, pool.engine))
        for pool in pools
    }


def divide(total: int, pools: int) -> list[int]:
    """``total`` pods over ``pools``, as evenly as can be; the first get the remainder."""
    share, rest = divmod(total, pools) if pools else (0, 0)
    return [share + (index < rest) for index in range(pools)]


def _pools(name: str, spec: DLLMDeploymentSpec, observed: Observed) -> list[tuple[PoolPlan, int | None]]:
    """Pools in their lasting order, each with the fixed number of pods its author gave it."""
    if spec.gpu_pools:
        return [(_explicit(name, spec, pool, observed.gpu_types), pool.replicas) for pool in spec.gpu_pools]
    if spec.device is Device.CPU:
        return [(_pool(name, CPU_POOL, spec), None)]
    found = {pool_name(gpu.product): gpu for gpu in observed.gpu_types}
    known = [pool for pool in observed.pool_order if pool in found]
    order = known + [pool for pool in found if pool not in known]
    return [(_pool(name, pool, spec, found[pool]), None) for pool in order]


def _explicit(name: str, spec: DLLMDeploymentSpec, pool: GpuPool, types: Sequence[GpuType]) -> PoolPlan:
    gpu = None
    if pool.product is not None:
        product = normalise_product(pool.product)
        gpu = find_type(product, types) or GpuType(product, {PRODUCT: product})
    elif spec.device is Device.CUDA:
        gpu = GpuType(product="", selector={})
    return _pool(name, pool.name, spec, gpu, pool)


def _pool(
    name: str,
    pool_name: str,
    spec: DLLMDeploymentSpec,
    gpu: GpuType | None = None,
    pool: GpuPool | None = None,
) -> PoolPlan:
    uses_gpu = spec.device is Device.CUDA and gpu is not None
    engine = spec.engine.settings() if spec.engine else {}
    if uses_gpu and gpu and gpu.memory_limit_mib is not None:
        engine = {"gpu_memory_limit": f"{gpu.memory_limit_mib}MiB"} | engine
    if pool is not None and pool.engine is not None:
        engine |= pool.engine.settings()
    template = spec.pod_template
    resources = pool.resources if pool and pool.resources else template.resources
    tolerations = [t.manifest() for t in (*template.tolerations, *(pool.tolerations if pool else ()))]
    if uses_gpu and GPU_TOLERATION not in tolerations:
        tolerations.append(GPU_TOLERATION)
    return PoolPlan(
        name=pool_name,
        deployment=child_name(name, pool_name),
        product=gpu.product or None if gpu else None,
        memory_mib=gpu.memory_mib if gpu else None,
        gpu_resource=gpu.resource if uses_gpu and gpu else None,
        gpus_per_replica=(pool.gpus_per_replica if pool else 1) if uses_gpu else 0,
        node_selector=dict(template.node_selector)
        | (dict(pool.node_selector) if pool else {})
        | (dict(gpu.selector) if gpu else {}),
        tolerations=tuple(tolerations),
        engine=engine,
        resources=resources.manifest() if resources is not None else {},
    )


def _with_tuning(pool: PoolPlan, spec: DLLMDeploymentSpec, observed: Observed) -> PoolPlan:
    key = ProfileKey(
        product=normalise_product(pool.product) if pool.product else spec.device,
        memory=f"{pool.memory_mib}Mi"
        if pool.memory_mib
        else str(pool.resources.get("limits", {}).get("memory", "")),
        model=spec.model.source,
        revision=spec.model.revision or "",
        gpus=pool.gpus_per_replica,
        engine=lasting_settings(pool.engine),
        image=spec.image or observed.server_image,
    )
    known = observed.tunings.get(pool.name)
    if spec.tuning.mode is TuningMode.OFF:
        return replace(pool, profile_key=key, tuning=known)
    is_tuned = spec.tuning.mode is TuningMode.AUTO
    profiles = observed.profiles if is_tuned else {}
    tuning = pool_tuning(known, key, pool.engine, profiles)
    engine = {**pool.engine, **start_settings(tuning)} if is_tuned else pool.engine
    return replace(pool, profile_key=key, tuning=tuning, is_tuned=is_tuned, engine=engine)


def _with_replicas(
    pools: Sequence[tuple[PoolPlan, int | None]], spec: DLLMDeploymentSpec, observed: Observed
) -> tuple[PoolPlan, ...]:
    fixed = [replicas for _, replicas in pools if replicas is not None]
    shared = len(pools) - len(fixed)
    shares = [1] * shared if spec.replicas is None else divide(max(0, spec.replicas - sum(fixed)), shared)
    remaining = iter(shares)
    planned = []
    for pool, own in pools:
        replicas = next(remaining) if own is None else own
        if spec.autoscaling is not None and spec.autoscaling.is_builtin:
            planned.append(replace(pool, replicas=_scaled(pool, spec.autoscaling, observed)))
        elif spec.autoscaling is not None:
            planned.append(replace(pool, initial_replicas=spec.autoscaling.min_replicas))
        elif pool.deployment in observed.autoscaled:
            planned.append(replace(pool, initial_replicas=replicas))
        else:
            planned.append(replace(pool, replicas=replicas))
    return tuple(planned)


def _scaled(pool: PoolPlan, scaling: AutoscalingSpec, observed: Observed) -> int:
    """What was asked for last; what there is until something was."""
    asked = observed.scaling.pods.get(pool.name)
    if asked is None:
        live = observed.deployments().get(pool.deployment)
        asked = scaling.min_replicas if live is None else int(live["spec"].get("replicas", 1))
    return min(max(asked, scaling.min_replicas), scaling.max_replicas)


def _with_rollout(
    pools: Sequence[PoolPlan], spec: DLLMDeploymentSpec, observed: Observed, claim: Mounted | None
) -> tuple[PoolPlan, ...]:
    deployments, rolling = observed.deployments(), spec.pod_template.rolling_update
    reach = claim.reach if claim is not None else Reach.MANY_NODES
    return tuple(
        replace(
            pool,
            strategy=choose(
                rolling,
                deployments.get(pool.deployment),
                observed.pods_of(pool.name),
                observed.nodes,
                is_one_pod=reach is Reach.ONE_POD,
            ),
            is_on_one_node=reach is Reach.ONE_NODE,
        )
        for pool in pools
    )


def _most_pods(pool: PoolPlan, spec: DLLMDeploymentSpec) -> int:
    if spec.autoscaling is not None:
        return spec.autoscaling.max_replicas
    return pool.initial_replicas if pool.replicas is None else pool.replicas


def _integrations(spec: DLLMDeploymentSpec) -> list[Integration]:
    wanted = []
    if spec.autoscaling is not None and not spec.autoscaling.is_builtin:
        wanted.append(Integration.SCALED_OBJECT)
    if spec.monitoring.pod_monitor:
        wanted.append(Integration.POD_MONITOR)
    if spec.networking.inference_pool is not None:
        wanted.append(Integration.INFERENCE_POOL)
    return wanted
