"""What is said of a request's positions, from the host's table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from dllm_kernels.layout import IntArray
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


def stop_token(table: SlotTable, request: Request, position: int) -> StopToken | None:
    """The one at ``position``, which ends the request; None where it was its grammar that ended there."""
    if position == table.sequence_len[request.slot] or table.is_masked[request.slot, position]:
        return None
    token, logprob = table.token_ids[request.slot, position], table.logprobs[request.slot, position]
    return StopToken(int(token), float(logprob), request.alternatives.pop(position, []))


Shown = tuple[int, list[int], list[float | None]]


def shown_blocks(
    table: SlotTable,
    requests: Sequence[Request],
    bounds: IntArray,
    first: IntArray,
    logprobs: NDArray[np.float32],
) -> list[Shown]:
    """Of each request the place of its block in what is generated, its tokens, -1 where they are masked, and,
    where it asks for them, their confidences.

    ``bounds`` ``[requests, 2]`` are where the blocks start and end; ``logprobs`` ``[requests, block]`` those
    of the tokens that a step has chosen from positions ``first`` on, NaN where it chose none.
    """
    slots = np.array([request.slot for request in requests])
    prompt = table.prompt_len[slots]
    start, end = np.maximum(bounds[:, 0], prompt), np.minimum(bounds[:, 1], table.limit[slots])
    lengths = end - start
    position = np.minimum(start[:, None] + np.arange(lengths.max(initial=0)), table.max_model_len - 1)
    cells = slots[:, None], position
    is_masked = table.is_masked[cells]
    shown = np.where(is_masked, -1, table.token_ids[cells]).tolist()
    confidence: list[list[float | None]] = [[] for _ in requests]
    if any(request.message.wants_confidence for request in requests):
        column = position - first[:, None]
        is_seen = (column >= 0) & (column < logprobs.shape[1])
        seen = np.take_along_axis(logprobs, column.clip(0, logprobs.shape[1] - 1), axis=1)
        chosen = np.where(is_seen, seen, np.nan)
        known = np.exp(np.where(is_masked, chosen, table.logprobs[cells]).astype(np.float64)).round(4)
        confidence = known.tolist()
        if np.isnan(known).any():
            confidence = [[None if value != value else value for value in row] for row in known.tolist()]
    return [
        (offset, tokens[:length], told[:length] if request.message.wants_confidence else [])
        for request, offset, length, tokens, told in zip(
            requests, (start - prompt).tolist(), lengths.tolist(), shown, confidence, strict=True
        )
    ]


def canvas_update(request: Request, phase: Phase, shown: Shown) -> CanvasUpdate:
    """What a step in ``phase`` has made of the block, see ``shown_blocks``."""
    start, tokens, confidence = shown
    return CanvasUpdate(request.request_id, start, tokens, request.forward_passes, phase, confidence)
