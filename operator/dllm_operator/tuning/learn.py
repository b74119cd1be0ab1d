"""What a window teaches: bytes a token, speed, what a request needs. Windows that would mislead teach
nothing.
"""

from __future__ import annotations

from dataclasses import replace

from dllm_operator.tuning.state import TuningState
from dllm_operator.tuning.window import PoolWindow

SUMS_DECAY = 0.8
FORGET = 0.1  # how fast a maximum gives way to smaller observations
MEASURABLE_SHARE = 0.2  # of the token budget: smaller steps are mostly overhead
BUSY = 0.5  # share of tight steps from which on the token budget limits the pool
LEAST_USABLE = 0.25  # less is no property of the steps
REMEMBERED = 6


def learn(state: TuningState, window: PoolWindow, bytes_per_row: float) -> TuningState:
    """The next window's state. Pods that run an older generation, that ran nothing, or whose windows are not
    over are not evidence."""
    state = replace(state, window=state.window + 1)
    if window.pods == 0 or window.seconds <= 0 or not window.is_applied:
        return state
    other = (*state.other_bytes, window.other_bytes)[-REMEMBERED:]
    base = state.base_other_bytes
    state = replace(state, other_bytes=other, base_other_bytes=window.other_bytes if base is None else base)
    if not window.has_traffic:
        return state
    state = replace(state, sums=state.sums.scaled(SUMS_DECAY) + window.steps)
    if window.tight >= BUSY:
        used = window.steps.mean_tokens / state.setting.max_num_batched_tokens
        state = replace(state, usable_share=min(max(used, LEAST_USABLE), 1.0))
    if window.peak_tokens >= MEASURABLE_SHARE * state.setting.max_num_batched_tokens:
        seen = window.peak_activation_bytes / window.peak_tokens
        known = state.bytes_per_token
        state = replace(state, bytes_per_token=max(seen, known + FORGET * (seen - known)))
    if window.running >= 1:
        pages = window.used_pages / window.running
        state = replace(state, pages_per_request=pages if pages > 0 else state.pages_per_request)
        if bytes_per_row > 0:
            state = replace(state, rows_per_request=window.peak_logits_bytes / bytes_per_row / window.running)
    if window.tokens_per_request > 0:
        state = replace(state, tokens_per_request=window.tokens_per_request)
    return state
