"""The device side of a step: forward the flat batch, choose tokens, commit them to the canvas."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from dllm_kernels.attention import paged_attention, varlen_attention
from dllm_kernels.kv_select import select_and_pack
from dllm_kernels.lm_head import Choice, Sampling, lm_head_choose
from dllm_kernels.noise import noise_keys, uniform
from numpy.typing import NDArray
from torch import Tensor

from dllm_server.engine.batch import StepBatch
from dllm_server.engine.denoise import choose_commits
from dllm_server.engine.kv_pool import KvPool
from dllm_server.engine.slots import CONFIDENCES, STRATEGIES, SlotTable
from dllm_server.models.transformer import Attention, Transformer
from dllm_server.settings import Confidence, Strategy


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step committed, on the host, each ``[requests, block]`` in the batch's order.

    ``tokens`` int32 is -1 where nothing was committed; ``logprobs`` float32 is the log probability of a
    committed token under the clean logits.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


class ModelRunner:
    """Owns the device's canvas and runs batches against a K/V pool."""

    def __init__(
        self, model: Transformer, pool: KvPool, table: SlotTable, *, shares_indices: bool = False
    ) -> None:
        self.model, self.pool, self._table = model, pool, table
        self._shares_indices = shares_indices
        self.forward_seconds = 0.0  # host time of the last forward and head; on a GPU only their launches
        self._banned = torch.tensor([model.config.mask_token_id], device=model.device)
        self._canvas = torch.zeros(table.slots * table.max_model_len, dtype=torch.int64, device=model.device)

    def start(self, slot: int) -> None:
        """Copy a new request's canvas from the host's table to the device."""
        length = self._table.max_model_len
        self._canvas[slot * length : (slot + 1) * length] = torch.from_numpy(self._table.token_ids[slot])

    def release_cached_memory(self) -> None:
        """Give the allocator's cached blocks back to the device."""
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def run(self, batch: StepBatch, max_num_logits: int) -> StepResult:
        """One forward pass and its commits. Nothing is committed when it raises."""
        started = time.perf_counter()
        hidden = self.model.forward(self._canvas[batch.canvas], batch.positions, self._attention(batch))
        rows = self.model.final_norm(hidden[batch.head.row])
        del hidden
        keys = self._noise_keys(batch)
        sampling = self._sampling(batch, keys)
        choice = lm_head_choose(rows, self.model.lm_head, self._banned, sampling, max_num_logits)
        del rows
        self.forward_seconds = time.perf_counter() - started
        return self._commit(batch, choice, keys)

    def _attention(self, batch: StepBatch) -> Attention:
        split = batch.refresh_rows

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = torch.empty_like(q)
            k_pool, v_pool = self.pool.k[layer], self.pool.v[layer]
            if split:
                varlen_attention(q[:split], k[:split], v[:split], batch.refresh_groups, out[:split])
                select_and_pack(
                    q[:split],
                    k[:split],
                    v[:split],
                    batch.pack_groups,
                    k_pool,
                    v_pool,
                    shares_indices=self._shares_indices,
                )
            if split < batch.rows:
                k_pool[batch.tail_slots] = k[split:]
                v_pool[batch.tail_slots] = v[split:]
                paged_attention(q[split:], k_pool, v_pool, batch.reuse_groups, out[split:])
            return out.flatten(1)

        return attend

    def _column(self, column: NDArray[np.generic], batch: StepBatch) -> Tensor:
        return torch.from_numpy(column[batch.slots]).to(self.model.device)

    def _noise_keys(self, batch: StepBatch) -> Tensor | None:
        """A key for each head row, where any request samples or ranks at random."""
        table, slots, head = self._table, batch.slots, batch.head
        is_random = table.confidence[slots] == CONFIDENCES.index(Confidence.RANDOM)
        if not (is_random.any() or table.temperature[slots].any()):
            return None
        seed, step = (
            self._column(table.seed, batch)[head.request],
            self._column(table.step, batch)[head.request],
        )
        return noise_keys(seed, head.position, step)

    def _sampling(self, batch: StepBatch, keys: Tensor | None) -> Sampling | None:
        table, slots, request = self._table, batch.slots, batch.head.request
        if keys is None or not table.temperature[slots].any():
            return None
        is_filtered = bool((table.top_p[slots] < 1).any() or (table.top_k[slots] > 0).any())
        return Sampling(
            temperature=self._column(table.temperature, batch)[request],
            keys=keys,
            top_p=self._column(table.top_p, batch)[request],
            top_k=self._column(table.top_k, batch)[request],
            is_filtered=is_filtered,
        )

    def _commit(self, batch: StepBatch, choice: Choice, keys: Tensor | None) -> StepResult:
        table, head = self._table, batch.head
        grid, device = (batch.requests, batch.block), self.model.device
        size = batch.requests * batch.block
        is_masked = torch.zeros(size, dtype=torch.bool, device=device).index_fill_(0, head.cell, True)
        confidence = torch.zeros(size, device=device)
        confidence.index_copy_(0, head.cell, self._confidence(batch, choice, keys))
        used = frozenset(STRATEGIES[index] for index in np.unique(table.strategy[batch.slots]))
        strategy, value = self._column(table.strategy, batch), self._column(table.value, batch)
        entropy = confidence
        if Strategy.ENTROPY_BOUND in used:
            entropy = torch.zeros_like(confidence).index_copy_(0, head.cell, choice.entropy)
        committed = choose_commits(
            confidence.view(grid), entropy.view(grid), is_masked.view(grid), strategy, value, used
        )
        is_committed = committed.view(-1)[head.cell]
        canvas = torch.where(is_committed, choice.token, self._canvas[head.canvas])
        logprobs = choice.probability.clamp_min(torch.finfo(torch.float32).tiny).log()
        packed = torch.full((2, size), -1, dtype=torch.int32, device=device)
        packed[0].index_copy_(0, head.cell, torch.where(is_committed, choice.token, -1).to(torch.int32))
        packed[1].index_copy_(0, head.cell, logprobs.view(torch.int32))
        host = packed.view(2, *grid).cpu().numpy()  # the step's only device-to-host copy
        self._canvas[head.canvas] = canvas  # last: nothing that can fail comes after a commit
        return StepResult(tokens=host[0], logprobs=host[1].view(np.float32))

    def _confidence(self, batch: StepBatch, choice: Choice, keys: Tensor | None) -> Tensor:
        kinds = np.unique(self._table.confidence[batch.slots])
        by_kind = {
            Confidence.PROBABILITY: lambda: choice.probability,
            Confidence.MARGIN: lambda: choice.margin,
            Confidence.ENTROPY: lambda: -choice.entropy,
            Confidence.RANDOM: lambda: self._random_confidence(keys),
        }
        if len(kinds) == 1:
            return by_kind[CONFIDENCES[kinds[0]]]()
        kind = self._column(self._table.confidence, batch)[batch.head.request]
        result = choice.probability
        for index in kinds:
            result = torch.where(kind == int(index), by_kind[CONFIDENCES[index]](), result)
        return result

    @staticmethod
    def _random_confidence(keys: Tensor | None) -> Tensor:
        assert keys is not None, "random confidence always has noise keys"  # noqa: S101
        return uniform(keys ^ 0x5BD1E995, 1)[:, 0]
