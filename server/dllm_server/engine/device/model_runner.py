"""The device side of a step: forward the flat batch, choose tokens, commit them to the canvas."""

from __future__ import annotations

import time

import torch
from dllm_kernels.backend import Backend
from dllm_kernels.layout import IntArray
from torch import Tensor

from dllm_server.engine.device.commit import commit
from dllm_server.engine.device.device_table import DeviceTable
from dllm_server.engine.device.forward_inputs import place_forward
from dllm_server.engine.device.guided import GuidedHead
from dllm_server.engine.device.head import Head
from dllm_server.engine.device.head_inputs import place_head
from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.pending_step import PendingStep, PendingTokens, StepResult
from dllm_server.engine.device.step_attention import StepAttention
from dllm_server.engine.device.step_graphs import CudaRecorder, StepGraphs
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch
from dllm_server.models.transformer import Transformer


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
        self._head, self._guided = Head(model), GuidedHead(model, table)
        self.on_device = DeviceTable(table, model.device, model.config.mask_token_id)
        self._is_grouped = model.operations.backend is Backend.TORCH
        self._graphs: StepGraphs | None = None
        self._renewed: list[int] = []

    def capture(self, reuse_requests: int, window: int, refresh_tokens: int) -> None:
        """Replay CUDA graphs from now on: see ``StepGraphs.capture``. Not for one index set of all heads."""
        record = CudaRecorder(self.model.device)
        self._graphs = StepGraphs(self.model, self.pool, self._table, self.on_device, record)
        self._graphs.capture(reuse_requests, window, refresh_tokens)

    def start(self, slot: int) -> None:
        """Take over a new request from the host's table."""
        self.on_device.start(slot)

    def renew(self, slot: int) -> None:
        """Before the next step take over the canvas again, of which the host has taken tokens back."""
        self._renewed.append(slot)

    def grow(self, slots: IntArray, entries: IntArray) -> None:
        """Take over pages that have come to running requests."""
        self.on_device.grow(slots, entries)

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
        while self._renewed:
            self.on_device.start(self._renewed[-1])
            self._renewed.pop()
        head = place_head(batch, self._table, self.model.device)
        hidden = self._forward(batch, head.row)
        split = hidden.shape[0] - len(batch.guided.row)
        result = self._head.run(hidden[:split], head, max_num_logits)
        guided = self._guided.fill(hidden[split:], batch, max_num_logits)
        write = self.on_device.writer(guided.canvas, guided.token) if guided is not None else None
        pending = PendingStep(
            host,
            alternatives=PendingTokens.of(result.alternatives, head.named),
            scores=PendingTokens.of(result.scores, batch.scored.request),
            guided=guided,
            done=done,
        )
        self.forward_seconds = time.perf_counter() - started
        commit(head, result.choice, self.on_device.canvas, host, self.model.operations)
        if write is not None:
            write()
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
