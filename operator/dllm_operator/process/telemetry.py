"""The operator's own metrics."""

from __future__ import annotations

from dllm_server.metric import counter, gauge, histogram
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from dllm_operator.observing.tuner import TuningObserver
from dllm_operator.process.fleet import FLEET_FAMILIES
from dllm_operator.process.reconciler import ReconcileObserver
from dllm_operator.watching.work_queue import QueueObserver

_RECONCILES = counter("dllm_operator_reconciles", "Reconciles by outcome.", ("outcome",), unit="reconciles")
_RECONCILE_SECONDS = histogram("dllm_operator_reconcile_seconds", "Time a reconcile took.")
_QUEUE_DEPTH = gauge("dllm_operator_queue_depth", "Resources waiting or being reconciled.", unit="resources")
_WATCH_EVENTS = counter("dllm_operator_watch_events", "Watch events by kind.", ("kind",), unit="events")
_IS_LEADER = gauge("dllm_operator_is_leader", "1 while this process leads.")
_WATCH_STALLED_SECONDS = gauge(
    "dllm_operator_watch_stalled_seconds", "How long the view has lagged behind the API server."
)
_TUNING_LOOKS = counter(
    "dllm_operator_tuning_looks", "Looks at a pool by what they led to.", ("reason",), unit="looks"
)
_TUNING_CHANGES = counter(
    "dllm_operator_tuning_changes", "Changed settings by reason.", ("reason",), unit="changes"
)
_TUNING_SILENT_PODS = counter("dllm_operator_tuning_silent_pods", "Pods that a look could not read.")
_INTERNAL_ERRORS = counter(
    "dllm_operator_internal_errors",
    "Exceptions that nobody expected, by what they came from; each is in the log with its traceback.",
    ("where",),
    unit="errors",
)
_LEFT_RESOURCES = gauge(
    "dllm_operator_left_resources",
    "Resources that another operator looks after, whose namespaces overlap with this one's.",
)
OPERATOR_FAMILIES = (
    _RECONCILES,
    _RECONCILE_SECONDS,
    _QUEUE_DEPTH,
    _WATCH_EVENTS,
    _IS_LEADER,
    _WATCH_STALLED_SECONDS,
    _TUNING_LOOKS,
    _TUNING_CHANGES,
    _TUNING_SILENT_PODS,
    _INTERNAL_ERRORS,
    _LEFT_RESOURCES,
    *FLEET_FAMILIES,
)
RECONCILE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OperatorMetrics(QueueObserver, TuningObserver, ReconcileObserver):
    """Prometheus series of one operator process; names begin with `dllm_operator_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reconciles = _RECONCILES.counter(self.registry)
        self._seconds = _RECONCILE_SECONDS.histogram(self.registry, RECONCILE_SECONDS)
        self._depth = _QUEUE_DEPTH.gauge(self.registry)
        self._events = _WATCH_EVENTS.counter(self.registry)
        self._leading = _IS_LEADER.gauge(self.registry)
        self._stalled = _WATCH_STALLED_SECONDS.gauge(self.registry)
        self._looks = _TUNING_LOOKS.counter(self.registry)
        self._changes = _TUNING_CHANGES.counter(self.registry)
        self._silent = _TUNING_SILENT_PODS.counter(self.registry)
        self._internal_errors = _INTERNAL_ERRORS.counter(self.registry)
        self._left = _LEFT_RESOURCES.gauge(self.registry)
        for where in ("reconcile", "watch", "tuning"):
            self._internal_errors.labels(where)
        for outcome in ("success", "error"):
            self._reconciles.labels(outcome)

    def depth(self, keys: int) -> None:
        self._depth.set(keys)

    def finished(self, seconds: float, error: Exception | None) -> None:
        self._seconds.observe(seconds)
        self._reconciles.labels("success" if error is None else "error").inc()

    def internal_error(self, where: str) -> None:
        self._internal_errors.labels(where).inc()

    def left(self, resources: int) -> None:
        self._left.set(resources)

    def watch_event(self, kind: str) -> None:
        self._events.labels(kind).inc()

    def leading(self, is_leader: bool) -> None:
        self._leading.set(is_leader)

    def stalled(self, seconds: float) -> None:
        self._stalled.set(seconds)

    def looked(self, reason: str, silent: int) -> None:
        self._looks.labels(reason).inc()
        self._silent.inc(silent)

    def changed(self, reason: str) -> None:
        self._changes.labels(reason).inc()

    def collect(self, collector: Collector) -> None:
        """Series that are counted at each scrape."""
        self.registry.register(collector)

    def render(self) -> bytes:
        return generate_latest(self.registry)
