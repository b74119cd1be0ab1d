"""The engine's state as one message for the API's /metrics."""

from __future__ import annotations

from dllm_server.engine.process.live_tuning import GrowthLimits, TuningWatch
from dllm_server.engine.process.startup import StartedEngine
from dllm_server.engine.requests.messages import EngineSnapshot, Window


def take_snapshot(
    started: StartedEngine, windows: list[Window], limits: GrowthLimits, tuning: TuningWatch | None
) -> EngineSnapshot:
    engine, stats, pool = started.engine, started.engine.stats, started.engine.runner.pool
    prefixes = pool.store.counts
    return EngineSnapshot(
        requests_running=engine.requests_running,
        requests_waiting=engine.requests_waiting,
        tokens_total=dict(stats.tokens),
        steps_total=dict(stats.steps),
        committed_tokens_total=stats.committed_tokens,
        step_seconds={kind: histogram.message() for kind, histogram in stats.step_seconds.items()},
        batch_fill=stats.batch_fill,
        token_budget=engine.token_budget,
        max_num_seqs=engine.live.max_num_seqs,
        max_num_logits=engine.live.max_num_logits,
        max_model_len=engine.capacity.max_model_len,
        kv_pages={"free": pool.store.free_pages, "used": pool.store.used_pages},
        prefix_pages=pool.store.cached_pages,
        prefix_tokens_total={
            "queried": prefixes.queried_tokens,
            "hit": prefixes.hit_tokens,
            "saved": prefixes.saved_tokens,
            "evicted": prefixes.evicted_tokens,
        },
        preemptions_total=stats.preemptions,
        page_size=pool.page_size,
        memory_bytes=started.ledger.owners(),
        memory_peak_bytes=started.ledger.peak_owners(),
        memory_predicted_bytes=started.predicted.owners(),
        device_memory_bytes=started.memory.total_bytes,
        oom_total=dict(stats.oom),
        cancelled_total=stats.cancelled,
        refused_total=stats.refused,
        not_finite_total=engine.soundness.not_finite,
        is_sound=engine.soundness.is_sound,
        tuning_generation=tuning.generation if tuning else 0,
        tuning_errors_total=tuning.errors if tuning else 0,
        is_tuning_refused=tuning is not None and tuning.is_refused,
        live=engine.live.model_dump(),
        floors={"max_num_batched_tokens": engine.floor_tokens},
        ceilings=limits.ceilings(engine.live),
        step_sums=dict(stats.step_times.sums),
        step_sums_left_out=dict(stats.step_times.left_out),
        windows=windows,
        requests_by_phase=engine.requests_by_phase,
        recent_steps=list(stats.recent),
        tuning_changes=list(tuning.changes) if tuning else [],
    )
