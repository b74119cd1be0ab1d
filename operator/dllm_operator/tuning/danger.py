"""Out of memory, or a peak above the target: less at once, and never again soon."""

from __future__ import annotations

import itertools
from dataclasses import replace

from dllm_operator.tuning.decision import Action, Change, Decision, Reason
from dllm_operator.tuning.objective import AIM_BELOW, Objective, is_cooling, memory_use
from dllm_operator.tuning.setting import Bounds, Setting, difference
from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow

CUT = 0.5  # of the token budget after an out-of-memory
LEAST_CUT = 0.9  # of the token budget after a peak above target
PAGES_CUT = 0.5  # of the pages at once
LEAST_PAGES = 2
LEAK_SHARE = 0.03  # of the device, grown since the start and still growing
LEAK_WINDOWS = 5


def in_danger(state: TuningState, window: PoolWindow, objective: Objective) -> tuple[TuningState, Decision]:
    """Less at once; the level becomes a ceiling. Growth that belongs to no setting is a leak instead."""
    now = state.setting
    has_ended = window.out_of_memory + window.host_out_of_memory > 0
    reason, what = _danger(window, objective)
    if not window.is_applied:
        return state, Decision(Reason.APPLYING, f"{what}; the last cut is not applied yet")
    if _is_leaking(state, window) and not has_ended:
        message = f"{what}: other memory grows window after window with nothing changed; restart the pods"
        return state, Decision(Reason.LEAK, message, Change(Action.RESTART, now))
    if not has_ended and window.peak_activation_bytes + window.peak_logits_bytes < _excess(window, objective):
        return state, _shrink_pages(state, window, objective, what)
    bounds, tokens = objective.bounds, now.max_num_batched_tokens
    use = memory_use(state, window, objective)
    predicted = use.most_tokens(now, objective.target - AIM_BELOW) if use.bytes_per_token > 0 else tokens
    most = tokens * (CUT if has_ended else LEAST_CUT)
    cut = replace(now, max_num_batched_tokens=int(min(most, max(predicted, tokens * CUT))))
    if cut.max_num_batched_tokens < bounds.tokens.low:
        cut = _cut_others(now, bounds)
    cut = bounds.clamp(cut)
    if cut == now:
        return state, Decision(Reason.AT_BOUNDS, f"{what}, and every setting is at its lower bound")
    state = replace(
        state,
        ceiling_tokens=tokens,
        ceiling_pool_bytes=now.kv_pool_bytes,
        ceiling_window=state.window,
        trial=None,
    )
    message = f"{what}: {difference(now, cut)}"
    return state, Decision(reason, message, Change(Action.LIVE, cut))


def _excess(window: PoolWindow, objective: Objective) -> float:
    """Bytes of the peak above the target."""
    return window.peak_bytes - objective.target * window.device_bytes


def _shrink_pages(state: TuningState, window: PoolWindow, objective: Objective, what: str) -> Decision:
    """No token budget helps where what is held between steps is too much. At most half of the pages go at
    once."""
    now = state.setting
    wish = now.kv_pool_bytes - _excess(window, objective) - AIM_BELOW * window.device_bytes
    pages = int(max(wish, PAGES_CUT * now.kv_pool_bytes)) // objective.page_bytes
    smaller = replace(now, kv_pool_bytes=pages * objective.page_bytes)
    held = f"{what}, and not for activations"
    if pages < LEAST_PAGES or smaller == now:
        return Decision(Reason.AT_BOUNDS, f"{held}: weights and other memory leave no room for pages")
    if is_cooling(state):
        return Decision(Reason.SETTLING, f"{held}: the last restart is too recent for another")
    message = f"{held}: {difference(now, smaller)}"
    return Decision(Reason.PEAK_ABOVE_TARGET, message, Change(Action.RESTART, smaller))


def _danger(window: PoolWindow, objective: Objective) -> tuple[Reason, str]:
    if window.out_of_memory:
        return Reason.OUT_OF_MEMORY, f"{window.out_of_memory} out-of-memory"
    if window.host_out_of_memory:
        what = f"the kubelet ended {window.host_out_of_memory} pods at their memory limit"
        return Reason.HOST_OUT_OF_MEMORY, what
    what = f"peak at {window.peak_share:.1%} of the device, target {objective.target:.0%}"
    return Reason.PEAK_ABOVE_TARGET, what


def _cut_others(now: Setting, bounds: Bounds) -> Setting:
    """The token budget to its bound; where it is there already, sequences, then logits rows."""
    low = int(bounds.tokens.low)
    if now.max_num_batched_tokens > low:
        return replace(now, max_num_batched_tokens=low)
    if now.max_num_seqs > bounds.seqs.low:
        return replace(now, max_num_seqs=max(int(now.max_num_seqs * 0.8), 1))
    return replace(now, max_num_logits=max(int(now.max_num_logits * CUT), 1))


def _is_leaking(state: TuningState, window: PoolWindow) -> bool:
    known, base = state.other_bytes, state.base_other_bytes
    if base is None or len(known) < LEAK_WINDOWS:
        return False
    is_growing = known[-1] > known[0] and all(a <= b for a, b in itertools.pairwise(known))
    return is_growing and known[-1] - base >= LEAK_SHARE * window.device_bytes
