"""A step between its launch and the reading of its result."""

from __future__ import annotations

from dataclasses import dataclass

from dllm_server.engine.device.model_runner import PendingStep
from dllm_server.engine.requests.request import Request
from dllm_server.engine.schedule.batch import StepBatch


@dataclass(frozen=True, slots=True)
class Launched:
    """``requests`` in the batch's order. ``forward_seconds`` is the host's time for the forward pass and the
    head; on a GPU only their launches. ``is_predictable``: the phases that follow are known before the result
    is (an EOS aside)."""

    pending: PendingStep
    batch: StepBatch
    requests: list[Request]
    budget: int
    started_seconds: float
    forward_seconds: float
    is_predictable: bool
