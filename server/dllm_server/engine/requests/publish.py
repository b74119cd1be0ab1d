"""What is said of a request's positions, from the host's table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dllm_server.engine.requests.messages import BlockCommitted, CanvasUpdate, StopToken
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.requests.slots import SlotTable


def block_committed(table: SlotTable, request: Request, start: int, end: int) -> BlockCommitted:
    """Positions ``start`` to ``end`` are committed; what is of the prompt is no news."""
    start = max(start, int(table.prompt_len[request.slot]))
    tokens = table.token_ids[request.slot, start:end].tolist()
    logprobs = table.logprobs[request.slot, start:end].tolist()
    positions = range(start, end) if request.message.top_logprobs else ()
    alternatives = [request.alternatives.pop(position) for position in positions]
    request.is_opening = True
    return BlockCommitted(request.request_id, tokens, logprobs, request.stats(), alternatives)


def stop_token(table: SlotTable, request: Request, position: int) -> StopToken:
    """The one at ``position``, which ends the request."""
    token, logprob = table.token_ids[request.slot, position], table.logprobs[request.slot, position]
    return StopToken(int(token), float(logprob), request.alternatives.pop(position, []))


def canvas_update(
    table: SlotTable,
    request: Request,
    block: tuple[int, int],
    phase: Phase,
    first: int,
    logprobs: NDArray[np.float32],
) -> CanvasUpdate:
    """The ``block`` (start and end) as it is after a step in ``phase``, -1 where it is masked. ``logprobs``
    are those of the tokens that the step chose from position ``first`` on, NaN where it chose none."""
    slot, (start, end) = request.slot, block
    start = max(start, int(table.prompt_len[slot]))
    is_masked = table.is_masked[slot, start:end]
    shown = np.where(is_masked, -1, table.token_ids[slot, start:end])
    confidence: list[float | None] = []
    if request.message.wants_confidence:
        seen = np.full(end - start, np.nan, np.float32)
        low, high = max(start, first), min(end, first + len(logprobs))
        seen[low - start : high - start] = logprobs[low - first : high - first]
        known = np.exp(np.where(is_masked, seen, table.logprobs[slot, start:end]))
        confidence = [None if np.isnan(value) else round(value, 4) for value in known.tolist()]
    offset = start - int(table.prompt_len[slot])
    passes = request.forward_passes
    return CanvasUpdate(request.request_id, offset, shown.tolist(), passes, phase, confidence)
