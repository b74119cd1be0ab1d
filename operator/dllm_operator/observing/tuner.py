"""The tuning loop: reads each tuned pool's pods, lets the controller decide, wakes the reconcile, which
writes. Runs in the leader only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import aiohttp
import structlog
from dllm_server.settings import Device

from dllm_operator.api.v1alpha1 import DLLMDeploymentSpec, TuningMode
from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.labels import API_PORT_NAME, METRICS_PORT_NAME, POOL
from dllm_operator.cluster.observe import Manifest
from dllm_operator.cluster.placement import free_places
from dllm_operator.cluster.profile_store import ProfileStore
from dllm_operator.cluster.resource import Resource, manager_of
from dllm_operator.observing.prometheus import query
from dllm_operator.observing.scrape import Scrape, scrape
from dllm_operator.planning.plan import PoolPlan
from dllm_operator.planning.planner import Planner
from dllm_operator.planning.rollout import is_restarting, refusal, restart_hindrance
from dllm_operator.planning.turns import Verdict
from dllm_operator.reporting.failures import MemoryEnd, classify, is_serving, memory_ends
from dllm_operator.reporting.status import situation
from dllm_operator.tuning.decision import Decision
from dllm_operator.tuning.look import Outcome, Surroundings, look
from dllm_operator.tuning.observation import observe_pool
from dllm_operator.tuning.pool_start import start_share
from dllm_operator.tuning.reading import PodReading, merged

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
MOST_BETWEEN_SCRAPES = 60.0  # engines show their last windows only
AT_ONCE = 8  # resources
_HELD_BY = {
    Verdict.PAUSED: "the end of spec.rollout.pause",
    Verdict.STOPPED: "a release with which no pool has failed",
    Verdict.FOLLOW: "another pool's rollout",
    Verdict.QUEUED: "its turn to roll out",
}


class Turns(Protocol):
    """Who may roll out, as the reconcile decides it."""

    def restart_hindrance(self, spec: DLLMDeploymentSpec) -> str | None:
        """What has to come before another restart."""

    def verdict(self, key: ResourceKey, deployment: str) -> Verdict | None:
        """The last one about that pool of the resource."""


class TuningObserver:
    """What the loop tells its metrics; this one ignores it."""

    def looked(self, reason: str, silent: int) -> None:
        """One look at a pool, and how many of its pods said nothing."""

    def changed(self, reason: str) -> None:
        """One change that engines are told of."""

    def internal_error(self, where: str) -> None:
        """An exception that nobody expected."""


@dataclass(slots=True)
class _PoolReadings:
    """``before`` are those that the last decision used; ``latest`` hold every window since."""

    before: dict[str, PodReading] = field(default_factory=dict)
    latest: dict[str, PodReading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """A pool on the cluster: its pods, its Deployment, and what has to come before a restart."""

    pods: Sequence[Manifest]
    live: Manifest | None
    restart_waits_for: str | None
    verdict: Verdict | None


@dataclass(slots=True)
class _Watched:
    """A tuned resource: when it is read and decided about next (monotonic seconds)."""

    uid: str
    scrape_at: float
    decide_at: float
    pools: dict[str, _PoolReadings] = field(default_factory=dict)


class Tuner:
    """``wake`` queues a resource for the reconcile; only resources that ``manager`` has claimed are tuned."""

    def __init__(
        self,
        view: ClusterView,
        planner: Planner,
        profiles: ProfileStore,
        wake: Callable[[ResourceKey], None],
        turns: Turns,
        *,
        manager: str,
        now: Callable[[], datetime],
        prometheus_url: str | None = None,
        observe: TuningObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view, self._planner, self._profiles = view, planner, profiles
        self._book = planner.book
        self._manager = manager
        self._wake, self._now, self._clock, self._turns = wake, now, clock, turns
        self._prometheus_url = prometheus_url
        self._observe = observe or TuningObserver()
        self._watched: dict[ResourceKey, _Watched] = {}

    async def run(self) -> None:
        """Until cancelled."""
        slots = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession() as session:
            while True:
                started = self._clock()
                await self.tick(session, slots)
                await asyncio.sleep(max(TICK_SECONDS - (self._clock() - started), 0.05))

    async def tick(self, session: aiohttp.ClientSession, slots: asyncio.Semaphore) -> None:
        """Every resource that is due; one that fails is logged and looked at again in its interval."""

        async def visit(key: ResourceKey, body: Manifest) -> None:
            async with slots:
                try:
                    await self._visit(session, key, body)
                except Exception as error:  # one resource's trouble must not stop the others
                    log.exception("tuning failed", key=key, error=str(error))
                    self._observe.internal_error("tuning")

        async with asyncio.TaskGroup() as group:
            for key, body in self._due():
                group.create_task(visit(key, body))

    def _due(self) -> list[tuple[ResourceKey, Manifest]]:
        now, due, tuned = self._clock(), [], set()
        bodies = self._view.resources.objects
        self._book.keep({body["metadata"]["uid"] for body in bodies.values()})
        for key, body in list(bodies.items()):
            mode = body.get("spec", {}).get("tuning", {}).get("mode", TuningMode.OFF)
            if mode == TuningMode.OFF or "deletionTimestamp" in body["metadata"]:
                continue
            if manager_of(body) != self._manager:
                continue
            tuned.add(key)
            watched, uid = self._watched.get(key), body["metadata"]["uid"]
            if watched is not None and watched.uid == uid and now < watched.scrape_at:
                continue
            if watched is None or watched.uid != uid:
                self._watched[key] = _Watched(uid, now, now)
            due.append((key, body))
        for key in self._watched.keys() - tuned:
            del self._watched[key]
        return due

    async def _visit(self, session: aiohttp.ClientSession, key: ResourceKey, body: Manifest) -> None:
        watched, now = self._watched[key], self._clock()
        watched.scrape_at = now + MOST_BETWEEN_SCRAPES  # of one that cannot even be parsed
        resource = Resource.parse(body)
        spec = resource.spec
        if spec is None:
            watched.scrape_at = now
            return
        interval = float(spec.tuning.interval_seconds)
        watched.scrape_at = now + min(interval, MOST_BETWEEN_SCRAPES)
        silent = await self._read(session, key, watched)
        if now < watched.decide_at:
            return
        watched.decide_at = now + interval
        # Reading took its time: the resource may be another by now.
        newest = self._view.resources.objects.get(key)
        if newest is None or newest["metadata"]["uid"] != resource.uid:
            return
        resource = Resource.parse(newest)
        if resource.spec is not None and resource.spec.tuning.mode is not TuningMode.OFF:
            await self._decide(key, resource, resource.spec, watched, silent)

    async def _read(
        self, session: aiohttp.ClientSession, key: ResourceKey, watched: _Watched
    ) -> Mapping[str, str]:
        """Pods that said nothing, and why; what the others said is kept with what they said before."""
        pods = {
            pod["metadata"]["name"]: pod for pod in self._view.pods.owned(key).values() if is_serving(pod)
        }
        if self._prometheus_url is None:
            urls = {name: url for name, pod in pods.items() if (url := _metrics_url(pod)) is not None}
            found = await scrape(session, urls)
            found.silent.update(dict.fromkeys(pods.keys() - urls.keys(), "it has no port for metrics"))
        elif pods:
            found = await query(session, self._prometheus_url, key[0], pods.keys())
        else:
            found = Scrape()
        of_pool = {name: pod["metadata"]["labels"].get(POOL, "") for name, pod in pods.items()}
        for pool in {*of_pool.values(), *watched.pools}:
            held = watched.pools.setdefault(pool, _PoolReadings())
            held.latest = {
                pod: merged(held.latest.get(pod), found.readings[pod])
                if pod in found.readings
                else held.latest[pod]
                for pod, its_pool in of_pool.items()
                if its_pool == pool and (pod in found.readings or pod in held.latest)
            }
        return found.silent

    async def _decide(
        self,
        key: ResourceKey,
        resource: Resource,
        spec: DLLMDeploymentSpec,
        watched: _Watched,
        silent: Mapping[str, str],
    ) -> None:
        """A look at each pool; one pool at a time may restart."""
        planned, observed = self._planner.plan(resource, spec), self._planner.observe(resource)
        if planned.problem is not None:
            return
        states = situation(resource, planned, observed, None).pools
        is_settled, deployments = all(pool.is_settled for pool in states), observed.deployments()
        is_changed = False
        for pool, state in zip(planned.pools, states, strict=True):
            pods = observed.pods_of(pool.name)
            names = {pod["metadata"]["name"] for pod in pods}
            its_silent = {pod: reason for pod, reason in silent.items() if pod in names}
            held = watched.pools.setdefault(pool.name, _PoolReadings())
            hindrance = "a rollout to end" if not is_settled else self._turns.restart_hindrance(spec)
            if hindrance is None:
                hindrance = restart_hindrance(pool.strategy, state.wanted, self._free_places(pool))
            verdict = self._turns.verdict(key, pool.deployment)
            place = _Place(pods, deployments.get(pool.deployment), hindrance, verdict)
            before = self._book.of(resource).get(pool.name)
            outcome = await self._look(resource, spec, pool, held, its_silent, place)
            if outcome is None:
                continue
            is_changed = True
            restart = outcome.tuning.state.restart_generation
            if before is not None and before.state.restart_generation != restart:
                is_settled = False
        if is_changed:
            self._wake(key)

    async def _look(
        self,
        resource: Resource,
        spec: DLLMDeploymentSpec,
        pool: PoolPlan,
        held: _PoolReadings,
        silent: Mapping[str, str],
        place: _Place,
    ) -> Outcome | None:
        """None where there is nothing new to write."""
        tuning = self._book.of(resource).get(pool.name)
        if tuning is None or pool.profile_key is None:
            return None
        ends = [end for end in memory_ends(place.pods) if end.finished_at > tuning.memory.last_end]
        answering = {pod: reading for pod, reading in held.latest.items() if pod not in silent}
        seen = observe_pool(
            held.before,
            answering,
            silent,
            generation=tuning.state.generation if pool.is_tuned else 0,
            kills=_count(ends, is_host=False),
            host_kills=_count(ends, is_host=True),
        )
        is_new = is_restarting(place.live, tuning.state.restart_generation) if pool.is_tuned else False
        is_calm = seen.window.is_applied and not silent and bool(answering) and not is_new
        if not seen.is_conclusive and is_calm and seen.notes == tuning.notes:
            return None  # between two of the engines' windows
        around = Surroundings(
            spec=spec.tuning,
            is_host_memory=spec.device is Device.CPU,
            start_share=start_share(pool.engine),
            restart_waits_for=place.restart_waits_for,
            is_restarting=is_new,
            is_failing=any(classify(pod) is not None for pod in place.pods) or _is_refused(place.live),
            restart_held_by=_HELD_BY.get(place.verdict) if place.verdict is not None else None,
            is_undone=is_new and place.verdict in (Verdict.BACK, Verdict.UNDONE),
            last_end=max((end.finished_at for end in ends), default=""),
        )
        outcome = look(tuning, seen, answering, around, self._now())
        if seen.is_conclusive or not held.before:
            held.before = dict(held.latest)
        self._book.put(resource, pool.name, outcome.tuning)
        self._tell(resource, pool, outcome.tuning.reason, len(silent), outcome.change)
        if pool.is_tuned:
            await self._profiles.learn(pool.profile_key, outcome.tuning, self._now())
        return outcome

    def _free_places(self, pool: PoolPlan) -> int | None:
        """For more pods of the pool, at most; None where it asks for no device."""
        if pool.gpu_resource is None:
            return None
        nodes, pods = self._view.nodes.values(), self._view.pods.objects.values()
        return free_places(
            pool.node_selector, pool.tolerations, pool.gpu_resource, pool.gpus_per_replica, nodes, pods
        )

    def _tell(
        self, resource: Resource, pool: PoolPlan, reason: str, silent: int, change: Decision | None
    ) -> None:
        self._observe.looked(reason, silent)
        if change is not None:
            self._observe.changed(change.reason)
            log.info(
                "tuned",
                namespace=resource.namespace,
                name=resource.name,
                pool=pool.name,
                reason=change.reason,
                message=change.message,
            )


def _is_refused(live: Manifest | None) -> bool:
    return live is not None and refusal(live) is not None


def _metrics_url(pod: Manifest) -> str | None:
    """On the port of that name; pods of an older version have them on their only one, the API's."""
    ports = [port for each in pod["spec"].get("containers", ()) for port in each.get("ports", ())]
    named = {port.get("name"): port["containerPort"] for port in ports}
    port = named.get(METRICS_PORT_NAME) or named.get(API_PORT_NAME)
    address = pod["status"].get("podIP", "")
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/metrics" if port is not None else None


def _count(ends: Iterable[MemoryEnd], *, is_host: bool) -> int:
    return sum(end.is_host is is_host for end in ends)
