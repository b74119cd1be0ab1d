"""The device side of a step: forward the flat batch, choose tokens, commit them to the canvas."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from dllm_kernels.backend import Backend
from dllm_kernels.layout import IntArray
from dllm_kernels.whole_logits import Alternatives
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.device.commit import commit
from dllm_server.engine.device.device_table import DeviceTable
from dllm_server.engine.device.forward_inputs import place_forward
from dllm_server.engine.device.head import Head
from dllm_server.engine.device.head_inputs import place_head
from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.step_attention import StepAttention
from dllm_server.engine.device.step_graphs import CudaRecorder, StepGraphs
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.models.transformer import Transformer


@dataclass(frozen=True, slots=True)
class RowAlternatives:
    """The most likely tokens of the rows for ``cells`` int64 ``[rows]`` of the ``[requests, block]`` grid,
    the likeliest first, on the host: int32 ``[rows, count]`` and their float32 log probabilities, ``-inf``
    for tokens that are banned."""

    cells: IntArray
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step committed, on the host, each ``[requests, block]`` in the batch's order.

    ``tokens`` int32 is -1 where nothing was committed; ``logprobs`` float32 is the log probability of a
    committed token under the clean logits. ``alternatives`` is there where any request asks for them.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    alternatives: RowAlternatives | None


class PendingStep:
    """A step that the device runs or has run. What it writes: ``host`` int32 ``[2, requests, block]``, and
    for the rows of ``cells`` their alternatives, int32 ``[2, rows, count]``."""

    def __init__(
        self, host: Tensor, alternatives: Tensor | None, cells: IntArray, done: torch.cuda.Event | None
    ) -> None:
        self._tokens, logprobs = host.numpy()
        self._logprobs = logprobs.view(np.float32)
        self._alternatives = None
        if alternatives is not None:
            tokens, logprobs = alternatives.numpy()
            self._alternatives = RowAlternatives(cells, tokens, logprobs.view(np.float32))
        self._done = done

    def result(self) -> StepResult:
        """Waits for the device."""
        if self._done is not None:
            self._done.synchronize()
        return StepResult(self._tokens, self._logprobs, self._alternatives)


class ModelRunner:
    """Owns what the device keeps of the requests, and runs batches against a K/V pool."""

    def __init__(
        self,
        model: Transformer,
        pool: KvPool,
        table: SlotTable,
        *,
        shares_indices: bool = False,
    ) -> None:
        self.model, self.pool, self._table = model, pool, table
        self._shares_indices = shares_indices
        self.forward_seconds = 0.0  # host time of the last forward and head; on a GPU only their launches
        self._head = Head(model)
        self.on_device = DeviceTable(table, model.device, model.config.mask_token_id)
        self._is_grouped = model.operations.backend is Backend.TORCH
        self._graphs: StepGraphs | None = None

    def capture(self, reuse_requests: int, window: int, refresh_tokens: int) -> None:
        """Replay CUDA graphs from now on: see ``StepGraphs.capture``. Not for one index set of all heads."""
        record = CudaRecorder(self.model.device)
        self._graphs = StepGraphs(self.model, self.pool, self._table, self.on_device, record)
        self._graphs.capture(reuse_requests, window, refresh_tokens)

    def start(self, slot: int) -> None:
        """Take over a new request from the host's table."""
        self.on_device.start(slot)

    def release_cached_memory(self) -> None:
        """Give the allocator's cached blocks back to the device."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def run(self, batch: StepBatch, max_num_logits: int) -> StepResult:
        """One forward pass and its commits. Nothing is committed when it raises."""
        return self.launch(batch, max_num_logits).result()

    @torch.inference_mode()
    def launch(self, batch: StepBatch, max_num_logits: int) -> PendingStep:
        """Hand one forward pass and its commits to the device, which runs them in the order of launches.
        Nothing is committed when it raises."""
        started = time.perf_counter()
        is_cuda, grid = self.model.device.type == "cuda", (batch.requests, batch.block)
        host = torch.empty((2, *grid), dtype=torch.int32, pin_memory=is_cuda)
        done = torch.cuda.Event() if is_cuda else None  # type: ignore[no-untyped-call]
        head = place_head(batch, self._table, self.model.device)
        choice, alternatives = self._head.choose(self._forward(batch, head.row), head, max_num_logits)
        named = None if alternatives is None else _send_back(alternatives)
        pending = PendingStep(host, named, head.named, done)
        self.forward_seconds = time.perf_counter() - started
        commit(head, choice, self.on_device.canvas, host, self.model.operations)
        if done is not None:
            done.record()
        return pending

    def _forward(self, batch: StepBatch, rows: Tensor) -> Tensor:
        """Hidden states of ``rows``."""
        if self._graphs is not None and (hidden := self._graphs.forward(batch)) is not None:
            return hidden[rows]
        inputs = place_forward(batch, self._table, self.on_device, is_grouped=self._is_grouped)
        attention = StepAttention(
            inputs, self.pool, self.model.operations, shares_indices=self._shares_indices
        )
        tokens = self.on_device.tokens(inputs.canvas)
        return self.model.forward(tokens, inputs.positions, attention, rows)


def _send_back(alternatives: Alternatives) -> Tensor:
    """To the host, int32 ``[2, rows, count]``: the tokens, and the bits of their log probabilities; written
    when the device gets there."""
    tokens, bits = alternatives.token.to(torch.int32), alternatives.logprob.view(torch.int32)
    host = torch.empty((2, *tokens.shape), dtype=torch.int32, pin_memory=tokens.is_cuda)
    return host.copy_(torch.stack((tokens, bits)), non_blocking=True)
