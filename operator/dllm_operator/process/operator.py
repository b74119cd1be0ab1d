"""The operator process: health port, Lease, kopf, work queue, audits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import kopf
import structlog
from dllm_server.stop_signals import listen
from dllm_server.termination import FORCED_EXIT_CODE
from dllm_server.tracing import Tracer

from dllm_operator.cluster.cluster_view import ClusterView, ResourceKey
from dllm_operator.cluster.heartbeat import Heartbeats
from dllm_operator.cluster.kinds import DEPLOYMENT, POD, RESOURCE
from dllm_operator.cluster.kube import Kube, KubeError
from dllm_operator.cluster.labels import MANAGED_SELECTOR
from dllm_operator.cluster.profile_store import ProfileStore
from dllm_operator.observing.scaler import Scaler
from dllm_operator.observing.tuner import Tuner
from dllm_operator.planning.book import TuningBook
from dllm_operator.planning.planner import Planner
from dllm_operator.process.election import LeadershipLostError, lead
from dllm_operator.process.fleet import FleetCollector
from dllm_operator.process.health import Health, serve_health
from dllm_operator.process.reconciler import Reconciler, utc_now
from dllm_operator.process.rollouts import Rollouts, release_name
from dllm_operator.process.settings import OperatorSettings
from dllm_operator.process.telemetry import OperatorMetrics
from dllm_operator.process.trace import traced
from dllm_operator.render import PodDefaults
from dllm_operator.watching.handlers import Handlers, operator_settings
from dllm_operator.watching.watch_audit import WatchAudit
from dllm_operator.watching.work_queue import WorkQueue
from dllm_operator.writing.claim import Claims

log = structlog.get_logger(__name__)

EXIT_LEADERSHIP_LOST = 3
STOP_SECONDS = 8.0  # to end what runs and to hand the Lease back


async def run_operator(settings: OperatorSettings, tracer: Tracer | None = None) -> int:
    """Until SIGTERM or SIGINT (0; 130 where something would not end), or until the Lease is lost (3)."""
    stop = asyncio.Event()
    listen(stop)
    running = asyncio.create_task(_connect_and_run(settings, partial(listen, stop), tracer))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        log.info("stopping")
        running.cancel()
        _, unfinished = await asyncio.wait({running}, timeout=STOP_SECONDS)
        return FORCED_EXIT_CODE if unfinished else 0
    code = running.result()
    log.info("stopped", exit_code=code)
    return code


async def _connect_and_run(
    settings: OperatorSettings, hear_signals: Callable[[], None], tracer: Tracer | None
) -> int:
    kube = await Kube.connect()
    try:
        return await Operator(settings, kube, hear_signals, tracer).run()
    finally:
        await kube.close()


class Operator:
    """Holds the parts together; leads at most once in its life."""

    def __init__(
        self,
        settings: OperatorSettings,
        kube: Kube,
        hear_signals: Callable[[], None],
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._hear_signals = hear_signals
        self._view = ClusterView()
        self._metrics = OperatorMetrics()
        self._metrics.collect(FleetCollector(self._view))
        self._health = Health()
        self._audit = WatchAudit()
        defaults = PodDefaults(
            settings.server_image,
            settings.image_pull_policy,
            settings.lease_namespace,
            settings.front_door_image,
            settings.cluster_domain,
        )
        book = TuningBook()
        self._profiles = ProfileStore(kube, settings.lease_namespace, settings.profiles_name)
        planner = Planner(self._view, book, self._profiles, settings.server_image)
        rollouts = Rollouts(
            self._view, settings.max_rolling_pools, release_name(settings.server_image), self._wake
        )
        claims = Claims(kube, self._view, settings.manager, Heartbeats(kube, settings.takeover_seconds))
        reconciler = Reconciler(
            kube, self._view, planner, defaults, claims, settings.identity, rollouts, observe=self._metrics
        )
        self._queue: WorkQueue[ResourceKey] = WorkQueue(
            traced(reconciler.reconcile, tracer), self._metrics, tenant_of=lambda key: key[0]
        )
        self._tuner = Tuner(
            self._view,
            planner,
            self._profiles,
            self._queue.add,
            rollouts,
            manager=settings.manager,
            now=utc_now,
            prometheus_url=settings.prometheus_url,
            observe=self._metrics,
        )

        self._scaler = Scaler(
            kube,
            self._view,
            planner,
            self._queue.add,
            manager=settings.manager,
            internal_error=self._metrics.internal_error,
        )

    async def run(self) -> int:
        settings = self._settings
        async with serve_health(settings.http_port, self._health, self._metrics.render) as port:
            log.info("waiting for the lease", http_port=port, identity=settings.identity)
            try:
                await lead(
                    self._kube, settings.lease_name, settings.lease_namespace, settings.identity, self._work
                )
            except LeadershipLostError as error:
                log.error("leadership lost", reason=str(error))
                return EXIT_LEADERSHIP_LOST
            return 0

    def _wake(self, key: ResourceKey) -> None:
        self._queue.add(key)

    async def _work(self) -> None:
        self._health.is_leading, self._health.led_since = True, time.monotonic()
        self._metrics.leading(is_leader=True)
        await self._profiles.load()
        try:
            async with asyncio.TaskGroup() as group:
                rest = [
                    group.create_task(self._queue.run(self._settings.workers)),
                    group.create_task(self._resync()),
                    group.create_task(self._tuner.run()),
                    group.create_task(self._scaler.run()),
                    group.create_task(self._audit_watches()),
                ]
                await self._watch()
                for task in rest:
                    task.cancel()
        finally:
            self._metrics.leading(is_leader=False)

    async def _watch(self) -> None:
        registry = kopf.OperatorRegistry()
        handlers = Handlers(
            self._view,
            self._queue.add,
            self._metrics.watch_event,
            lambda: self._metrics.internal_error("watch"),
        )
        handlers.register(registry)
        settings = kopf.OperatorSettings()
        operator_settings(settings)
        settings.process.ultimate_exiting_timeout = STOP_SECONDS
        namespaces = self._settings.namespaces
        is_up = asyncio.Event()
        hearing = asyncio.create_task(self._hear_signals_again(is_up))
        try:
            await kopf.operator(
                registry=registry,
                settings=settings,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                ready_flag=is_up,
            )
        finally:
            hearing.cancel()

    async def _hear_signals_again(self, is_up: asyncio.Event) -> None:
        """kopf takes the signals over as it starts, and on one waits five seconds for tasks of others."""
        await is_up.wait()
        self._hear_signals()

    async def _resync(self) -> None:
        """Backs up the watches: every resource, spread over the interval."""
        while True:
            keys = list(self._view.resource_keys())
            interval = self._settings.resync_seconds / max(len(keys), 1)
            for key in keys:
                await asyncio.sleep(interval)
                self._queue.add(key)
            if not keys:
                await asyncio.sleep(self._settings.resync_seconds)

    async def _audit_watches(self) -> None:
        tables = (
            (RESOURCE, None, self._view.resources),
            (DEPLOYMENT, MANAGED_SELECTOR, self._view.children[DEPLOYMENT.kind]),
            (POD, MANAGED_SELECTOR, self._view.pods),
        )
        while True:
            await asyncio.sleep(self._settings.audit_seconds)
            try:
                listed: dict[str, int] = {}
                for kind, selector, _ in tables:
                    for namespace in self._settings.namespaces or (None,):
                        listed |= await self._kube.versions(kind, namespace, selector)
            except (KubeError, OSError, TimeoutError) as error:
                log.warning("audit failed", error=str(error))
                continue
            seen = {uid: version for _, _, table in tables for uid, version in table.versions().items()}
            now = time.monotonic()
            self._audit.compare(listed, seen, now)
            self._health.stalled_seconds = self._audit.stalled_seconds(now)
            self._health.audited_at = now
            self._metrics.stalled(self._health.stalled_seconds)
