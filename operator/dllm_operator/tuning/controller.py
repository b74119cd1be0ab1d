"""One pool, one window -> at most one change. Pure; `docs/tuning.md` explains each rule with its formula.

Down at once and without asking: out of memory, or a peak above the target. Up only on demand, to what the
model predicts to be enough, or by a cautious factor where the model is unknown or has missed; a step that
did not pay ends the climb. The split between activations and pages moves rarely, since it takes a restart.
"""

from __future__ import annotations

from dataclasses import replace

from dllm_operator.tuning.capacity import Load, MemoryUse, best_live, best_split, throughput
from dllm_operator.tuning.danger import in_danger
from dllm_operator.tuning.decision import Action, Change, Decision, Reason
from dllm_operator.tuning.learn import BUSY, learn
from dllm_operator.tuning.objective import AIM_BELOW, Objective, is_cooling, memory_use
from dllm_operator.tuning.setting import Setting, difference
from dllm_operator.tuning.speed import Speed, fit_speed
from dllm_operator.tuning.state import SETTLE_WINDOWS, Trial, TuningState
from dllm_operator.tuning.window import PoolWindow

CAUTIOUS_STEP = 1.25
HYSTERESIS = 1.08  # a wish closer than this to what is set is no wish
PAYOFF = 1.01  # a step up must bring this much
MISS = 0.10  # a prediction that far off does not count as a model
CEILING_WINDOWS = 120  # before a level that failed is tried again
CEILING_MARGIN = 0.9
STARVED_WINDOWS = 3
SPLIT_GAIN = 1.03
LOAD_SHIFT = 1.25


def decide(state: TuningState, window: PoolWindow, objective: Objective) -> tuple[TuningState, Decision]:
    """The next state and what to do. A change is already part of the next state: call this only to act on
    it.
    """
    state = learn(state, window, objective.bytes_per_row)
    state, decision = _decide(state, window, objective)
    if decision.change is None:
        is_calm = decision.reason in (Reason.SATISFIED, Reason.PLATEAU, Reason.AT_BOUNDS)
        return replace(state, calm=state.calm + 1 if is_calm else 0), decision
    return _changed(state, decision.change), decision


def postpone(state: TuningState, window: PoolWindow, objective: Objective) -> TuningState:
    """The next state where ``decide``'s change is not made: the window teaches, nothing else happens."""
    return replace(learn(state, window, objective.bytes_per_row), calm=0)


def _decide(state: TuningState, window: PoolWindow, objective: Objective) -> tuple[TuningState, Decision]:
    if window.host_out_of_memory and not objective.is_host_memory:
        message = (
            f"the kubelet ended {window.host_out_of_memory} pods at their memory limit, which no setting of "
            "the GPU changes: raise resources.limits.memory"
        )
        return state, Decision(Reason.HOST_OUT_OF_MEMORY, message)
    has_ended = window.out_of_memory + window.host_out_of_memory > 0
    if window.pods == 0 and not has_ended:
        return state, Decision(Reason.NO_READINGS, "no pod answered")
    if has_ended or window.peak_share > objective.target:
        return in_danger(state, window, objective)
    if not window.is_applied:
        return state, Decision(Reason.APPLYING, f"pods take over generation {state.generation}")
    if window.seconds <= 0:
        return state, Decision(Reason.NO_READINGS, "no window of the pods is over since the last look")
    if not window.has_traffic:
        return state, Decision(Reason.NO_TRAFFIC, "no step has run")
    if state.settling > 0:
        state = replace(state, settling=state.settling - 1)
        return state, Decision(Reason.SETTLING, "the last change settles")
    state = _judge_trial(state, window)
    return _improve(state, window, objective)


def _judge_trial(state: TuningState, window: PoolWindow) -> TuningState:
    """Has the last step up kept its promise?"""
    trial = state.trial
    if trial is None or not window.has_demand:
        return state
    seen = window.steps.tokens / window.steps.seconds
    predicted = trial.predicted_tokens_per_second
    missed = predicted is not None and abs(seen - predicted) > MISS * predicted
    has_paid = seen >= PAYOFF * trial.tokens_per_second
    return replace(
        state,
        trial=None,
        misses=state.misses + 1 if missed else 0,
        plateau_running=None if has_paid else window.running,
    )


def _improve(state: TuningState, window: PoolWindow, objective: Objective) -> tuple[TuningState, Decision]:
    latency, limit = window.latency_p95_seconds, objective.latency_p95_seconds
    if latency is not None and limit is not None and latency > limit:
        return _shorten_steps(state, latency, limit, objective)
    speed = fit_speed(state.sums) if state.misses < 2 else None
    state = replace(state, starved=state.starved + 1 if _is_starved(state, window, objective) else 0)
    split = _split(state, window, objective, speed)
    if split is not None:
        return replace(state, starved=0), split
    if not (window.has_demand and window.tight >= BUSY):
        message = f"the token budget keeps requests out of {window.tight:.0%} of the steps"
        return state, Decision(Reason.SATISFIED, message)
    if state.plateau_running is not None:
        if window.running < LOAD_SHIFT * state.plateau_running:
            return state, Decision(Reason.PLATEAU, "the last step up brought nothing")
        state = replace(state, plateau_running=None)
    return _step_up(state, window, objective, speed)


def _step_up(
    state: TuningState, window: PoolWindow, objective: Objective, speed: Speed | None
) -> tuple[TuningState, Decision]:
    now, use = state.setting, memory_use(state, window, objective)
    if use.bytes_per_token <= 0:
        return state, Decision(Reason.SATISFIED, "no step has been large enough to measure")
    seen = window.steps.tokens / window.steps.seconds
    target = objective.target - AIM_BELOW
    if speed is None:
        most = min(use.most_tokens(now, target), int(now.max_num_batched_tokens * CAUTIOUS_STEP))
        wish = replace(now, max_num_batched_tokens=max(most, now.max_num_batched_tokens))
        reason, predicted = Reason.CAUTIOUS_STEP, None
    else:
        load = _load(state, window)
        wish = best_live(now, use, speed, load, objective.live_bounds, target)
        reason, predicted = Reason.MODEL_STEP, throughput(wish, use, speed, load)
    wish = objective.live_bounds.clamp(_below_ceiling(state, wish, use))
    if wish.max_num_batched_tokens < now.max_num_batched_tokens * HYSTERESIS:
        return state, Decision(Reason.SATISFIED, "the token budget is where memory and speed want it")
    state = replace(state, trial=Trial(seen, predicted))
    message = f"requests wait and steps are full: {difference(now, wish)}"
    return state, Decision(reason, message, Change(Action.LIVE, wish))


def _split(
    state: TuningState, window: PoolWindow, objective: Objective, speed: Speed | None
) -> Decision | None:
    """Another division of memory between activations and pages, where it is worth a restart."""
    if speed is None or state.starved < STARVED_WINDOWS or state.pages_per_request is None:
        return None
    if is_cooling(state):
        return None
    now, use, load = state.setting, memory_use(state, window, objective), _load(state, window)
    use = replace(use, other_bytes=max(use.other_bytes, objective.reserved_bytes))
    bounds = objective.start_bounds
    wish = _below_ceiling(state, best_split(now, use, speed, load, bounds, objective.start_target), use)
    wish = bounds.clamp(wish)
    before, after = throughput(now, use, speed, load), throughput(wish, use, speed, load)
    if before <= 0 or after < SPLIT_GAIN * before or wish == now:
        return None
    message = f"{after / before - 1:.0%} more throughput predicted: {difference(now, wish)}"
    return Decision(Reason.SPLIT_MOVED, message, Change(Action.RESTART, wish))


def _shorten_steps(
    state: TuningState, latency: float, limit: float, objective: Objective
) -> tuple[TuningState, Decision]:
    now, bounds = state.setting, objective.bounds
    wish = bounds.clamp(replace(now, refresh_share=now.refresh_share * 0.8))
    if wish == now:
        wish = bounds.clamp(replace(now, max_num_batched_tokens=int(now.max_num_batched_tokens * 0.8)))
    what = f"p95 latency {latency:.2f} s, objective {limit:.2f} s"
    if wish == now:
        return state, Decision(Reason.AT_BOUNDS, f"{what}, and every setting is at its lower bound")
    message = f"{what}: {difference(now, wish)}"
    return state, Decision(Reason.LATENCY_ABOVE_OBJECTIVE, message, Change(Action.LIVE, wish))


def _load(state: TuningState, window: PoolWindow) -> Load:
    """What requests need. A request that is kept out of a step brings as much to a later one: what it brings
    when it takes part is what it would bring to every step of a larger budget."""
    return Load(
        tokens_per_step=state.tokens_per_request,
        pages=state.pages_per_request or 0.0,
        rows=state.rows_per_request,
        running=window.running,
        usable=state.usable_share,
        is_starved=window.has_demand,
    )


def _is_starved(state: TuningState, window: PoolWindow, objective: Objective) -> bool:
    """Requests wait and no live change can help: pages or sequences are all taken while steps have room, or
    steps are full and memory allows no larger ones."""
    if not window.has_demand:
        return False
    all_taken = window.page_share >= 0.9 or window.running >= state.setting.max_num_seqs - 0.5
    if window.tight < BUSY:
        return all_taken
    use = memory_use(state, window, objective)
    most = min(
        use.most_tokens(state.setting, objective.target - AIM_BELOW), objective.live_bounds.tokens.high
    )
    return state.setting.max_num_batched_tokens * HYSTERESIS >= most


def _below_ceiling(state: TuningState, wish: Setting, use: MemoryUse) -> Setting:
    """What failed was memory: fewer pages than then leave room for more tokens."""
    ceiling = state.ceiling_tokens
    if ceiling is None or state.window - state.ceiling_window >= CEILING_WINDOWS:
        return wish
    most = CEILING_MARGIN * ceiling
    if use.bytes_per_token > 0:
        most += (state.ceiling_pool_bytes - wish.kv_pool_bytes) / use.bytes_per_token
    return replace(wish, max_num_batched_tokens=max(min(wish.max_num_batched_tokens, int(most)), 1))


def _changed(state: TuningState, change: Change) -> TuningState:
    is_restart = change.action is Action.RESTART
    return replace(
        state,
        setting=change.setting,
        started=change.setting if is_restart else state.started,
        generation=state.generation + 1,
        settling=SETTLE_WINDOWS,
        restart_window=state.window if is_restart else state.restart_window,
        restart_generation=state.generation + 1 if is_restart else state.restart_generation,
        fallback=state.started if is_restart else state.fallback,
        fallback_restart=state.restart_generation if is_restart else state.fallback_restart,
        other_bytes=() if is_restart else state.other_bytes,
        base_other_bytes=None if is_restart else state.base_other_bytes,
        calm=0,
    )
