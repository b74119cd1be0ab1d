"""The scaling loop: reads each door, lets the policy decide how many pods each pool has, wakes the reconcile,
which writes. Runs in the leader only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import aiohttp
import structlog

from dllm_operator.api.v1alpha1 import AutoscalingSpec, DLLMDeploymentSpec
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.kinds import POD
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.labels import METRICS_PORT_NAME, POOL, door_selector
from dllm_operator.cluster.observe import Manifest, Observed
from dllm_operator.cluster.resource import Resource, manager_of
from dllm_operator.observing.scrape import read_text
from dllm_operator.planning.door import is_scaled_here, requests_at_once
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.planner import Planner
from dllm_operator.reporting.failures import is_serving
from dllm_operator.scaling.demand import Look
from dllm_operator.scaling.door_count import HELD_PATH, PATH, DoorCount, door_count, look_at, speeds, total
from dllm_operator.scaling.mix import Pool
from dllm_operator.scaling.policy import Rules, ScalingReason, ScalingState, Target, decide
from dllm_operator.scaling.record import Scaling
from dllm_operator.tuning.reading import ReadingError

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
STABILIZATION_SECONDS = IDLE_SECONDS = 300
START_SHARES = 4  # of what a pod takes to start, in which a queue is to be gone
STARTS_IN_SECONDS = 60.0


@dataclass(slots=True)
class _Watched:
    """``doors`` are the pods whose counts ``state`` goes on from."""

    state: ScalingState = field(default_factory=ScalingState)
    doors: frozenset[str] = frozenset()
    speed: dict[str, float] = field(default_factory=dict)


class Scaler:
    """``wake`` queues a resource for the reconcile; only what ``manager`` has claimed is scaled."""

    def __init__(
        self,
        kube: Kube,
        view: ClusterView,
        planner: Planner,
        wake: Callable[[ResourceKey], None],
        *,
        manager: str,
        internal_error: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube, self._view, self._planner, self._wake = kube, view, planner, wake
        self._manager, self._internal_error, self._clock = manager, internal_error, clock
        self._watched: dict[str, _Watched] = {}  # by uid

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                started = self._clock()
                await self.tick(session)
                await asyncio.sleep(max(LOOK_SECONDS - (self._clock() - started), 0.05))

    async def tick(self, session: aiohttp.ClientSession) -> None:
        """A look at every resource that is scaled here; one that fails is logged and looked at again."""
        due = {key: Resource.parse(body) for key, body in self._bodies().items()}
        scaled = {key: each for key, each in due.items() if each.spec and is_scaled_here(each.spec)}
        uids = {resource.uid for resource in scaled.values()}
        self._planner.scalings.keep(uids)
        self._watched = {uid: self._watched.get(uid, _Watched()) for uid in uids}

        async def visit(key: ResourceKey, resource: Resource, spec: DLLMDeploymentSpec) -> None:
            try:
                await self._visit(session, key, resource, spec)
            except Exception as error:  # one resource's trouble must not stop the others
                log.exception("scaling failed", key=key, error=str(error))
                self._internal_error("scaling")

        async with asyncio.TaskGroup() as group:
            for key, resource in scaled.items():
                if resource.spec is not None:
                    group.create_task(visit(key, resource, resource.spec))

    def _bodies(self) -> Mapping[ResourceKey, Manifest]:
        return {
            key: body
            for key, body in list(self._view.resources.objects.items())
            if body.get("spec", {}).get("autoscaling")
            and "deletionTimestamp" not in body["metadata"]
            and manager_of(body) == self._manager
        }

    async def _visit(
        self, session: aiohttp.ClientSession, key: ResourceKey, resource: Resource, spec: DLLMDeploymentSpec
    ) -> None:
        watched, before = self._watched[resource.uid], self._planner.scalings.of(resource.uid)
        found, silent = await self._read(session, resource)
        if silent or not found:
            self._put(key, resource, replace(before, silent=silent or "it has no pod that runs"))
            return
        planned, observed = self._planner.plan(resource, spec), self._planner.observe(resource)
        if planned.problem is not None or spec.autoscaling is None:
            return
        if watched.doors != found.keys():  # what others counted does not go on from here
            watched.state = replace(watched.state, looks=())
            watched.doors = frozenset(found)
        count = total(list(found.values()))
        watched.speed = speeds(count, watched.speed)
        look = look_at(count, self._clock(), watched.speed)
        pods = {pool.name: pool.replicas or 0 for pool in planned.pools}
        watched.state, target = decide(
            watched.state,
            look,
            _pools(spec, spec.autoscaling, planned.pools, watched.speed),
            pods,
            _ready(planned.pools, observed),
            _rules(spec.autoscaling),
        )
        self._put(key, resource, _scaling(before, target, pods, look))

    def _put(self, key: ResourceKey, resource: Resource, scaling: Scaling) -> None:
        before = self._planner.scalings.of(resource.uid)
        if scaling == before:
            return
        self._planner.scalings.put(resource.uid, scaling)
        self._wake(key)
        if scaling.pods != before.pods:
            name = {"namespace": key[0], "name": key[1]}
            log.info("scaled", **name, pods=dict(scaling.pods), reason=scaling.reason, why=scaling.message)

    async def _read(
        self, session: aiohttp.ClientSession, resource: Resource
    ) -> tuple[dict[str, DoorCount], str]:
        """By pod of the door; why one that is ready says nothing."""
        selector = ",".join(f"{name}={value}" for name, value in door_selector(resource.name).items())
        try:
            pods = await self._kube.list(POD, resource.namespace, selector)
        except (KubeError, OSError) as error:
            return {}, f"its pods cannot be listed: {type(error).__name__}"
        found: dict[str, DoorCount] = {}
        for pod in pods:
            if not is_serving(pod):
                continue
            name, url = pod["metadata"]["name"], _url(pod)
            try:
                stats = await read_text(session, url + PATH)
                held = await read_text(session, url + HELD_PATH, missing="")
                found[name] = door_count(stats, held)
            except (aiohttp.ClientError, TimeoutError) as error:
                return {}, f"{name} does not answer: {type(error).__name__}"
            except (ReadingError, ValueError) as error:
                return {}, f"{name}: {error}"
        return found, ""


def _url(pod: Manifest) -> str:
    address = pod["status"].get("podIP", "")
    ports = [port for each in pod["spec"]["containers"] for port in each.get("ports", ())]
    port = next(port["containerPort"] for port in ports if port.get("name") == METRICS_PORT_NAME)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


def _pools(
    spec: DLLMDeploymentSpec,
    scaling: AutoscalingSpec,
    planned: Sequence[PoolPlan],
    speed: Mapping[str, float],
) -> list[Pool]:
    costs = {pool.name: pool.cost_per_hour for pool in spec.gpu_pools}
    return [
        Pool(
            pool.name,
            requests_at_once(pool.tuning if pool.is_tuned else None, pool.engine) * speed.get(pool.name, 1.0),
            costs.get(pool.name) or float(max(pool.gpus_per_replica, 1)),
            scaling.min_replicas,
            scaling.max_replicas,
        )
        for pool in planned
    ]


def _ready(planned: Sequence[PoolPlan], observed: Observed) -> dict[str, int]:
    serving = [pod["metadata"]["labels"].get(POOL) for pod in observed.pods if is_serving(pod)]
    return {pool.name: serving.count(pool.name) for pool in planned}


def _rules(scaling: AutoscalingSpec) -> Rules:
    stabilization = float(scaling.stabilization_seconds or STABILIZATION_SECONDS)
    idle = float(scaling.idle_seconds or IDLE_SECONDS) if scaling.min_replicas == 0 else None
    return Rules(
        stabilization_seconds=stabilization,
        drain_seconds=START_SHARES * STARTS_IN_SECONDS,
        idle_seconds=idle,
        memory_seconds=max(stabilization, STABILIZATION_SECONDS),
    )


def _scaling(before: Scaling, target: Target, pods: Mapping[str, int], look: Look) -> Scaling:
    """What is said stays as it was until something else is asked for, or would be but for the bounds."""
    asked, is_said = dict(target.pods), target.reason is before.reason
    if target.reason is ScalingReason.ENOUGH:
        is_said = before.reason not in (None, ScalingReason.AT_MOST)
    if is_said and asked == dict(pods):
        return replace(before, pods=asked, silent="")
    message = (
        f"{look.waiting} requests waited and {look.running:.0f} ran: pods for {target.need:.1f} at once, "
        + ", ".join(f"{name} {count}" for name, count in asked.items())
    )
    return Scaling(asked, target.reason, message)
