"""What is said of a request's positions, from the host's table."""

from __future__ import annotations

import numpy as np

from dllm_server.engine.requests.messages import BlockCommitted, CanvasUpdate, StopToken
from dllm_server.engine.requests.request import Request
from dllm_server.engine.requests.slots import SlotTable


def block_committed(table: SlotTable, request: Request, start: int, end: int) -> BlockCommitted:
    """Positions ``start`` to ``end`` are committed; what is of the prompt is no news."""
    start = max(start, int(table.prompt_len[request.slot]))
    tokens = table.token_ids[request.slot, start:end].tolist()
    logprobs = table.logprobs[request.slot, start:end].tolist()
    positions = range(start, end) if request.message.top_logprobs else ()
    alternatives = [request.alternatives.pop(position) for position in positions]
    return BlockCommitted(request.request_id, tokens, logprobs, request.stats(), alternatives)


def stop_token(table: SlotTable, request: Request, position: int) -> StopToken:
    """The one at ``position``, which ends the request."""
    token, logprob = table.token_ids[request.slot, position], table.logprobs[request.slot, position]
    return StopToken(int(token), float(logprob), request.alternatives.pop(position, []))


def canvas_update(table: SlotTable, request: Request, start: int, end: int) -> CanvasUpdate:
    """The block from ``start`` to ``end`` as it is, -1 where it is masked."""
    slot = request.slot
    start = max(start, int(table.prompt_len[slot]))
    shown = np.where(table.is_masked[slot, start:end], -1, table.token_ids[slot, start:end])
    offset = start - int(table.prompt_len[slot])
    return CanvasUpdate(request.request_id, offset, shown.tolist(), request.forward_passes)
