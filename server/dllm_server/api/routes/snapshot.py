"""/snapshot: the server's state as one object; it touches nothing but memory of this process."""

from __future__ import annotations

import time
from collections import deque

from fastapi import APIRouter
from msgspec import to_builtins

from dllm_server.api.routes.health import package_version
from dllm_server.api.schemas.errors import engine_dead, no_snapshot
from dllm_server.api.schemas.snapshot import (
    Snapshot,
    SnapshotLatency,
    SnapshotMemory,
    SnapshotPages,
    SnapshotPrefixCache,
    SnapshotRequests,
    SnapshotServer,
    SnapshotSetting,
    SnapshotSteps,
    SnapshotTimes,
    SnapshotTuning,
)
from dllm_server.api.service import Service
from dllm_server.engine.requests.messages import EngineSnapshot, ModelInfo
from dllm_server.telemetry.recent_times import RecentTimes, percentile


def snapshot_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["Operation"])

    @router.get("/snapshot", summary="State of the engine as one object")
    async def snapshot() -> Snapshot:
        if not service.engine.is_alive:
            raise engine_dead()
        if (newest := service.engine.snapshot) is None:
            raise no_snapshot()
        server = _server(service.engine.model, service.started_at, time.time())
        shares_prefixes = service.engine.model.blocks is not None
        return snapshot_of(newest, server, service.metrics.requests.recent, shares_prefixes=shares_prefixes)

    return router


def snapshot_of(
    engine: EngineSnapshot, server: SnapshotServer, recent: RecentTimes, *, shares_prefixes: bool
) -> Snapshot:
    """What is told of the engine's newest state and of the last answers."""
    plain = to_builtins(engine)
    return Snapshot(
        server=server,
        is_sound=engine.is_sound,
        requests=SnapshotRequests(
            running=engine.requests_running,
            waiting=engine.requests_waiting,
            most_running=engine.max_num_seqs,
            by_phase=engine.requests_by_phase,
        ),
        memory=SnapshotMemory(
            device_bytes=engine.device_memory_bytes,
            budget_bytes=sum(engine.memory_predicted_bytes.values()),
            by_owner=engine.memory_bytes,
            peak_by_owner=engine.memory_peak_bytes,
            predicted_by_owner=engine.memory_predicted_bytes,
        ),
        pages=SnapshotPages(**engine.kv_pages, prefix=engine.prefix_pages, page_size=engine.page_size),
        prefix_cache=SnapshotPrefixCache(**engine.prefix_tokens_total) if shares_prefixes else None,
        steps=SnapshotSteps(
            token_budget=engine.token_budget,
            total=engine.steps_total,
            tokens_total=engine.tokens_total,
            committed_tokens_total=engine.committed_tokens_total,
            out_of_memory_total=sum(engine.oom_total.values()),
            preemptions_total=engine.preemptions_total,
            recent=plain["recent_steps"],
        ),
        latency=SnapshotLatency(
            answers=len(recent.end_to_end),
            queue_seconds=_times(recent.queue),
            first_block_seconds=_times(recent.first_block),
            end_to_end_seconds=_times(recent.end_to_end),
        ),
        tuning=SnapshotTuning(
            generation=engine.tuning_generation,
            errors=engine.tuning_errors_total,
            is_refused=engine.is_tuning_refused,
            settings={
                name: SnapshotSetting(
                    value=value, floor=engine.floors.get(name), ceiling=engine.ceilings.get(name)
                )
                for name, value in engine.live.items()
            },
            changes=plain["tuning_changes"],
        ),
    )


def _server(model: ModelInfo, started_seconds: float, now_seconds: float) -> SnapshotServer:
    return SnapshotServer(
        version=package_version(),
        model=model.name,
        device=model.device,
        dtype=model.dtype,
        started_seconds=started_seconds,
        now_seconds=now_seconds,
    )


def _times(values: deque[float]) -> SnapshotTimes:
    return SnapshotTimes(
        p50=percentile(values, 0.5), p95=percentile(values, 0.95), p99=percentile(values, 0.99)
    )
