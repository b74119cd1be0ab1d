"""A step between its launch and the reading of its result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dllm_server.engine.device.model_runner import PendingStep, RowAlternatives
from dllm_server.engine.requests.request import Phase, Request
from dllm_server.engine.schedule.batch import StepBatch


@dataclass(frozen=True, slots=True)
class Launched:
    """``requests`` in the batch's order. ``forward_seconds`` is the host's time for the forward pass and the
    head; on a GPU only their launches. ``is_predictable``: the phases that follow are known before the result
    is (a stop token aside)."""

    pending: PendingStep
    batch: StepBatch
    requests: list[Request]
    budget: int
    started_seconds: float
    forward_seconds: float
    is_predictable: bool


def note_alternatives(launched: Launched, committed: NDArray[np.int32], rows: RowAlternatives) -> None:
    """Keep the alternatives of the tokens that the step has ``committed`` for the requests that asked."""
    batch = launched.batch
    for cell, tokens, logprobs in zip(rows.cells.tolist(), rows.tokens, rows.logprobs, strict=True):
        index, column = divmod(cell, batch.block)
        request = launched.requests[index]
        count = request.message.top_logprobs
        if not count or committed[index, column] < 0 or request.phase is Phase.FINISHED:
            continue
        possible = np.isfinite(logprobs[:count])  # a banned token is no alternative
        named = zip(tokens[:count][possible].tolist(), logprobs[:count][possible].tolist(), strict=True)
        request.alternatives[int(batch.block_starts[index]) + column] = list(named)
