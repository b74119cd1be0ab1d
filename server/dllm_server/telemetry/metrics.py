"""All metrics of a server and their text."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest

from dllm_server.engine.requests.messages import EngineSnapshot
from dllm_server.telemetry.engine_collector import ENGINE_FAMILIES, EngineCollector
from dllm_server.telemetry.request_metrics import REQUEST_FAMILIES, RequestMetrics

SERVER_FAMILIES = (*REQUEST_FAMILIES, *ENGINE_FAMILIES)


class Metrics:
    """A registry of its own, so that two servers in one process do not share counts."""

    def __init__(self, newest_snapshot: Callable[[], EngineSnapshot | None], model_name: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(newest_snapshot, model_name))
        self.requests = RequestMetrics(self._registry, model_name)

    def render(self) -> bytes:
        """Prometheus' text format, whatever was asked for: prometheus-client writes the colons of `vllm:`
        names as underscores in OpenMetrics."""
        return generate_latest(self._registry)
