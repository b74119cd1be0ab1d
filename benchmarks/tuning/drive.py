"""The controller drives one pod; fixed settings serve the same load beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dllm_operator.api.tuning import TuningMode, TuningSpec
from dllm_operator.tuning.decision import Reason
from dllm_operator.tuning.look import Surroundings, look
from dllm_operator.tuning.observation import observe_pool
from dllm_operator.tuning.pool_start import specified_setting, start_share
from dllm_operator.tuning.reading import merged
from dllm_operator.tuning.record import Memory, PoolTuning, remembered
from dllm_operator.tuning.speed import fit_speed
from dllm_operator.tuning.state import TuningState
from dllm_server.engine.accounts.device_memory import is_out_of_memory
from dllm_server.memory import BudgetError

from benchmarks.gpu.bench import Bench
from benchmarks.tuning.pod import Pod

RAMP_SHARE = 0.4  # of a fixed run: the first refreshes, and the pages that fill up
POD = "pod"
KEY = "benchmark"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One memory limit. ``fixed`` are token budgets of the sweep, each with ``fixed_seqs`` at most."""

    limit: str | None
    start: dict[str, Any]
    fixed: tuple[int, ...]
    fixed_seqs: int
    fixed_seconds: float
    requests: int
    quota: int
    interval_seconds: float
    window_seconds: float
    looks: int
    steady_looks: int  # the last ones, which are compared
    target: float = 0.92


@dataclass(slots=True)
class Story:
    """A tuned run, a row a look, and what it has learned."""

    tuning: PoolTuning
    rows: list[dict[str, Any]] = field(default_factory=list)
    out_of_memory: int = 0

    def rate(self, last: int) -> float:
        rows = self.rows[-last:]
        return sum(row["tokens_per_second"] for row in rows) / len(rows) if rows else 0.0


def serve_fixed(bench: Bench, experiment: Experiment, tokens: int, folder: Path) -> dict[str, Any]:
    """Committed tokens a second with a fixed token budget, everything else left to the engine."""
    changes = experiment.start | {"max_num_batched_tokens": tokens, "max_num_seqs": experiment.fixed_seqs}
    row: dict[str, Any] = {"tokens": tokens, "seqs": experiment.fixed_seqs, "tokens_per_second": 0.0}
    try:
        pod = _pod(bench, experiment, changes, folder)
    except BudgetError as error:
        return row | {"failure": str(error)}
    try:
        pod.run(RAMP_SHARE * experiment.fixed_seconds)
        before, began = pod.committed_tokens, time.monotonic()
        pod.run((1 - RAMP_SHARE) * experiment.fixed_seconds)
        rate = (pod.committed_tokens - before) / (time.monotonic() - began)
        pages = pod.started.budget.pages
        return row | {"tokens_per_second": rate, "out_of_memory": pod.all_out_of_memory, "pages": pages}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return row | {"failure": "out of memory"}
    finally:
        pod.stop()


def serve_tuned(
    bench: Bench, experiment: Experiment, folder: Path, *, looks: int, learned: PoolTuning | None = None
) -> Story:
    """From the start that is the same for all, or from what another run learned."""
    specified = specified_setting(_engine_block(experiment))
    state = TuningState(specified, specified)
    if learned is not None:
        state = remembered(learned.state, learned.state.setting, generation=1)
    memory = Memory(KEY, state, specified)
    if learned is not None:
        known = learned.memory
        memory = Memory(KEY, state, specified, known.bytes_per_row, known.page_bytes, known.max_model_len)
    tuning = PoolTuning(memory)
    story = Story(tuning)
    pod = _pod(bench, experiment, experiment.start, folder, tuning if learned is not None else None)
    try:
        for number in range(looks):
            tuning = _look(bench, experiment, pod, tuning, story, number)
    finally:
        story.tuning, story.out_of_memory = tuning, pod.all_out_of_memory
        pod.stop()
    return story


def _look(
    bench: Bench, experiment: Experiment, pod: Pod, tuning: PoolTuning, story: Story, number: int
) -> PoolTuning:
    """An interval under load, then one look and what it leads to."""
    before = {POD: pod.read()}
    committed, began = pod.committed_tokens, time.monotonic()
    pod.run(experiment.interval_seconds)
    rate = (pod.committed_tokens - committed) / (time.monotonic() - began)
    now = {POD: merged(before[POD], pod.read())}
    seen = observe_pool(before, now, {}, generation=tuning.state.generation)
    spec = TuningSpec(mode=TuningMode.AUTO, target_memory_utilization=experiment.target)
    share = start_share(_engine_block(experiment))
    around = Surroundings(
        spec,
        is_host_memory=False,
        start_share=share,
        restart_waits_for=None,
        is_restarting=False,
        is_failing=False,
        last_end="",
    )
    used = tuning.state.setting
    outcome = look(tuning, seen, now, around, datetime.now(UTC))
    following = outcome.tuning
    window, speed = seen.window, fit_speed(following.state.sums)
    story.rows.append(
        {
            "look": number,
            "tokens_per_second": rate,
            "budget": used.max_num_batched_tokens,
            "seqs": used.max_num_seqs,
            "pool_bytes": window.kv_pool_bytes,
            "peak_bytes": window.peak_bytes,
            "device_bytes": window.device_bytes,
            "out_of_memory": window.out_of_memory,
            "tight": window.tight,
            "running": window.running,
            "usable_share": following.state.usable_share,
            "tokens_per_request": following.state.tokens_per_request,
            "bytes_per_token": following.state.bytes_per_token,
            "step_floor_seconds": speed.floor_seconds if speed else None,
            "forwarded_tokens_per_second": speed.tokens_per_second if speed else None,
            "reason": str(following.reason),
            "message": following.message,
        }
    )
    bench.say(f"look {number}: {rate:.0f} tok/s, {used.max_num_batched_tokens} tokens, {following.message}")
    if outcome.change is not None:
        if following.state.restart_generation == following.state.generation:
            pod.restart(following)
        pod.tell(following)
    return following


def is_quiet(story: Story, last: int) -> bool:
    """Whether the last looks ran out of memory no more and asked for nothing."""
    quiet = {str(reason) for reason in (Reason.SATISFIED, Reason.PLATEAU, Reason.AT_BOUNDS)}
    return all(row["reason"] in quiet and not row["out_of_memory"] for row in story.rows[-last:])


def _pod(
    bench: Bench,
    experiment: Experiment,
    changes: dict[str, Any],
    folder: Path,
    tuning: PoolTuning | None = None,
) -> Pod:
    limited = changes | {"gpu_memory_limit": experiment.limit}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tuning.json").unlink(missing_ok=True)
    return Pod(
        bench, limited, experiment.requests, experiment.quota, experiment.window_seconds, folder, tuning
    )


def _engine_block(experiment: Experiment) -> dict[str, Any]:
    return {name: value for name, value in experiment.start.items() if value is not None}
