"""Reconciles as traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from dllm_server.tracing import Tracer

from dllm_operator.cluster.cluster_view import ResourceKey

Reconcile = Callable[[ResourceKey], Awaitable[float | None]]


def traced(reconcile: Reconcile, tracer: Tracer | None) -> Reconcile:
    """With a trace for each call, whose ids are in all that is logged meanwhile; unchanged without one."""
    if tracer is None:
        return reconcile

    async def run(key: ResourceKey) -> float | None:
        namespace, name = key
        attributes = {"k8s.namespace.name": namespace, "dllm.resource.name": name}
        with (
            tracer.traced("reconcile", attributes) as span,
            structlog.contextvars.bound_contextvars(**span.ids),
        ):
            return await reconcile(key)

    return run
