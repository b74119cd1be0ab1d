"""One look at a pool: its tuning, what was read -> its next tuning. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dllm_operator.api.status import LastChange
from dllm_operator.api.tuning import CountBounds, ShareBounds, TuningMode, TuningSpec
from dllm_operator.tuning.controller import decide, postpone
from dllm_operator.tuning.decision import Action, Decision, Reason
from dllm_operator.tuning.objective import Objective
from dllm_operator.tuning.observation import PoolObservation
from dllm_operator.tuning.reading import PodReading
from dllm_operator.tuning.record import Memory, PoolTuning
from dllm_operator.tuning.setting import Bounds, Range, Setting
from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow

MOST_TOKENS = 131_072
MOST_SEQS = 1024
MOST_LOGITS = 32_768
LEAST_SHARE = 0.1
STUCK_LOOKS = 5  # at which a generation counts as not applied
ROLLBACK_LOOKS = 10
ON_ITS_WAY = timedelta(seconds=90)  # by the kubelet, from the ConfigMap to the file
_TOKENS = "max_num_batched_tokens"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a look depends on beyond the readings. ``start_share``: of the device, that engines divide when
    they start. ``restart_waits_for`` says what has to come before a restart, None if nothing.
    ``is_restarting``: pods of before the last one are left. ``restart_held_by`` says what keeps it from
    beginning, None if nothing; ``is_undone``: its pods did not become ready in time, and the pool went back.
    ``is_failing``: a pod of the pool cannot start."""

    spec: TuningSpec
    is_host_memory: bool
    start_share: float
    restart_waits_for: str | None
    is_restarting: bool
    is_failing: bool
    last_end: str  # time of the newest end by memory that the observation counts
    restart_held_by: str | None = None
    is_undone: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """``change`` is the decision that engines are now told of, if any."""

    tuning: PoolTuning
    change: Decision | None = None


def look(
    tuning: PoolTuning,
    seen: PoolObservation,
    readings: Mapping[str, PodReading],
    around: Surroundings,
    now: datetime,
) -> Outcome:
    """``readings`` are the newest, by pod name."""
    now = now.replace(microsecond=0)
    window = seen.window
    tuning = _updated(tuning, seen, readings, around, now)
    if around.is_undone and tuning.state.fallback is not None:
        return _rolled_back(tuning, now)
    kept, is_observing = tuning.state, around.spec.mode is TuningMode.OBSERVE
    state = _as_running(kept, window, readings) if is_observing else kept
    objective = _objective(tuning.memory, window, readings, around)
    if not readings and _is_on_its_way(tuning, now):
        window = replace(window, is_applied=False)
    following, decision = decide(state, window, objective)
    if _is_half_restarted(state, around) and not (decision.change and window.peak_share > objective.target):
        following = postpone(state, window, objective)
        decision = Decision(Reason.APPLYING, f"pods restart for generation {state.generation}")
        if around.restart_held_by is not None:
            held = f"the restart for generation {state.generation} waits for {around.restart_held_by}"
            decision = Decision(Reason.NOT_APPLIED, held)
    if _is_stuck(tuning, decision):
        if around.is_failing and state.fallback is not None and tuning.memory.applying >= ROLLBACK_LOOKS:
            return _rolled_back(tuning, now)
        behind = _behind(readings, state) or "new pods of the restart do not come"
        decision = Decision(Reason.NOT_APPLIED, f"{behind}; nothing is changed meanwhile")
    change = decision.change
    proposal = ""
    if change is None:
        pass
    elif is_observing:
        following, proposal = postpone(state, window, objective), decision.message
        decision = replace(decision, change=None)
    elif change.action is Action.RESTART and around.restart_waits_for is not None:
        following = postpone(state, window, objective)
        decision = Decision(decision.reason, f"waits for {around.restart_waits_for}: {decision.message}")
    if is_observing:
        following = replace(following, setting=kept.setting, started=kept.started)
    last = tuning.last_change
    if decision.change is not None:
        last = LastChange(reason=decision.reason, message=decision.message, time=now)
    tuning = replace(
        tuning,
        memory=replace(tuning.memory, state=following),
        reason=decision.reason,
        message=decision.message,
        proposal=proposal,
        last_change=last,
    )
    return Outcome(tuning, decision if decision.change is not None else None)


def _is_on_its_way(tuning: PoolTuning, now: datetime) -> bool:
    """Whether a pod that ended may not have had the newest settings yet: its end says nothing of them."""
    last = tuning.last_change
    return last is not None and now - last.time < ON_ITS_WAY


def _updated(
    tuning: PoolTuning,
    seen: PoolObservation,
    readings: Mapping[str, PodReading],
    around: Surroundings,
    now: datetime,
) -> PoolTuning:
    """With what the look saw, before anything is decided."""
    window, memory, state = seen.window, tuning.memory, tuning.state
    is_half_restarted = _is_half_restarted(state, around)
    if not is_half_restarted and (state.generation == 0 or around.spec.mode is not TuningMode.OBSERVE):
        state = _as_started(state, window, readings)
    has_stopped = is_half_restarted and around.is_failing
    is_behind = bool(readings) and (has_stopped or not window.is_applied)
    memory = replace(
        memory,
        state=state,
        bytes_per_row=window.peak_logits_bytes / window.peak_rows
        if window.peak_rows
        else memory.bytes_per_row,
        page_bytes=window.kv_pool_bytes // (window.total_pages + 1)
        if window.kv_pool_bytes
        else memory.page_bytes,
        max_model_len=min((r.max_model_len for r in readings.values()), default=memory.max_model_len),
        last_end=max(memory.last_end, around.last_end),
        applying=memory.applying + 1 if is_behind else 0 if readings else memory.applying,
    )
    is_measured = window.seconds > 0
    return replace(
        tuning,
        memory=memory,
        notes=seen.notes,
        peak_bytes=window.peak_bytes if is_measured else tuning.peak_bytes,
        device_bytes=window.device_bytes if is_measured else tuning.device_bytes,
        running=_running(state, readings) or tuning.running,
        out_of_memory=tuning.out_of_memory + window.out_of_memory,
        host_out_of_memory=tuning.host_out_of_memory + window.host_out_of_memory,
        looked_at=now,
    )


def _is_half_restarted(state: TuningState, around: Surroundings) -> bool:
    """Whether the newest generation is a restart under way. Old pods take over what of it is live, so their
    readings alone do not tell."""
    is_restart = state.restart_generation == state.generation > 0
    return around.spec.mode is TuningMode.AUTO and around.is_restarting and is_restart


def _running(state: TuningState, readings: Mapping[str, PodReading]) -> Setting | None:
    """What the pod that is furthest behind runs with."""
    name = min(readings, key=lambda pod: (readings[pod].generation, pod), default=None)
    if name is None:
        return None
    reading = readings[name]
    pages = reading.windows[-1].peak_bytes.get("kv_pool", 0) if reading.windows else 0
    return _with_live(state.setting, reading.live, pages)


def _with_live(setting: Setting, live: Mapping[str, float], kv_pool_bytes: int) -> Setting:
    return replace(
        setting,
        max_num_batched_tokens=int(live.get("max_num_batched_tokens", setting.max_num_batched_tokens)),
        max_num_seqs=int(live.get("max_num_seqs", setting.max_num_seqs)),
        max_num_logits=int(live.get("max_num_logits", setting.max_num_logits)),
        refresh_share=live.get("refresh_share", setting.refresh_share),
        kv_pool_bytes=kv_pool_bytes or setting.kv_pool_bytes,
    )


def _as_started(state: TuningState, window: PoolWindow, readings: Mapping[str, PodReading]) -> TuningState:
    """Before the first change, the engines themselves say what they started with; of pages, always: they get
    what is left, at most what was asked for."""
    if state.generation == 0:
        running = _as_running(state, window, readings)
        return replace(running, started=running.setting) if running is not state else state
    if not readings or not window.is_applied or not window.kv_pool_bytes:
        return state
    return replace(state, setting=replace(state.setting, kv_pool_bytes=window.kv_pool_bytes))


def _as_running(state: TuningState, window: PoolWindow, readings: Mapping[str, PodReading]) -> TuningState:
    """With the settings that the engines say they run with."""
    reading = next(iter(readings.values()), None)
    if reading is None or not window.is_applied:
        return state
    return replace(state, setting=_with_live(state.setting, reading.live, window.kv_pool_bytes))


def _objective(
    memory: Memory, window: PoolWindow, readings: Mapping[str, PodReading], around: Surroundings
) -> Objective:
    ceilings = [reading.ceilings.get(_TOKENS, math.inf) for reading in readings.values()]
    lowest = min(ceilings, default=math.inf)
    return Objective(
        target=around.spec.target_memory_utilization,
        bounds=bounds_of(around.spec, memory, window, readings),
        page_bytes=max(memory.page_bytes, 1),
        bytes_per_row=memory.bytes_per_row,
        latency_p95_seconds=around.spec.latency_p95_seconds,
        most_live_tokens=int(lowest) if lowest != math.inf else None,
        is_host_memory=around.is_host_memory,
        start_share=around.start_share,
        reserved_bytes=max((reading.reserved_bytes for reading in readings.values()), default=0),
        least_start_tokens=max(memory.max_model_len, 1),
    )


def bounds_of(
    spec: TuningSpec, memory: Memory, window: PoolWindow, readings: Mapping[str, PodReading]
) -> Bounds:
    """The user's within the engine's: no budget below what one request that ran needs in a step: a
    refresh is not split."""
    floors = [reading.floors.get(_TOKENS, 0.0) for reading in readings.values()]
    least = max(window.least_step_tokens, int(max(floors, default=0)))
    setting, given = memory.state.setting, spec.bounds
    return Bounds(
        tokens=_range(given.max_num_batched_tokens, max(least, 1), MOST_TOKENS),
        seqs=_range(given.max_num_seqs, 1, max(MOST_SEQS, setting.max_num_seqs)),
        logits=_range(given.max_num_logits, 1, max(MOST_LOGITS, setting.max_num_logits)),
        refresh_share=_range(given.refresh_share, LEAST_SHARE, 1.0),
    )


def _range(given: CountBounds | ShareBounds, low: float, high: float) -> Range:
    """What is given, else ``low`` and ``high``."""
    low = given.min if given.min is not None else low
    high = given.max if given.max is not None else high
    return Range(min(low, high), high)


def _is_stuck(tuning: PoolTuning, decision: Decision) -> bool:
    return decision.reason is Reason.APPLYING and tuning.memory.applying >= STUCK_LOOKS


def _behind(readings: Mapping[str, PodReading], state: TuningState) -> str:
    behind = sorted(pod for pod, reading in readings.items() if reading.generation != state.generation)
    return f"{', '.join(behind[:3])} did not take over generation {state.generation}" if behind else ""


def _rolled_back(tuning: PoolTuning, now: datetime) -> Outcome:
    """To what the pods had started with before the restart that they do not survive: those that are left of
    them stay."""
    state = tuning.state
    assert state.fallback is not None  # noqa: S101 - the caller looked
    generation = state.generation + 1
    back = replace(
        state,
        setting=state.fallback,
        started=state.fallback,
        fallback=None,
        generation=generation,
        restart_generation=state.fallback_restart,
        restart_window=state.window,
        trial=None,
        calm=0,
    )
    message = f"pods do not start with generation {state.generation}: back to what they started with before"
    change = LastChange(reason=Reason.ROLLED_BACK, message=message, time=now)
    memory = replace(tuning.memory, state=back, applying=0)
    following = replace(
        tuning, memory=memory, reason=Reason.ROLLED_BACK, message=message, last_change=change, proposal=""
    )
    return Outcome(following, Decision(Reason.ROLLED_BACK, message))
