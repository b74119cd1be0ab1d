"""Steps of requests that nobody sent, to measure and to rehearse with: all read and write the same pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.model_runner import ModelRunner
from dllm_server.engine.requests.messages import Diffusion, Generate, Sampling
from dllm_server.engine.requests.request import Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import StepBatch, build_batch
from dllm_server.memory import EngineLimits, lifetime_pages
from dllm_server.models.transformer import Transformer
from dllm_server.settings import Confidence, Strategy


@dataclass(frozen=True, slots=True)
class MadeUp:
    """``count`` requests of ``length`` tokens, of which the last block is masked."""

    table: SlotTable
    count: int
    length: int
    block: int

    @classmethod
    def of(
        cls,
        model: Transformer,
        limits: EngineLimits,
        count: int,
        length: int,
        ratio: float,
        sampling: Sampling,
    ) -> Self:
        config, grid = model.config, limits.grid
        block = grid or min(limits.block_length, max(length // 2, 1))
        length = max(length // grid * grid, grid) if grid else length
        table = SlotTable(
            count,
            length,
            max_pages=pages_of(limits, length, ratio, config.shift),
            page_size=limits.page_size,
            mask_token_id=config.mask_token_id,
            shift=config.shift,
            grid=grid,
        )
        diffusion = Diffusion(block, None, Strategy.QUOTA, 1.0, Confidence.PROBABILITY, ratio)
        prompt = [config.eos_token_id] * (length - block)
        message = Generate("made-up", prompt, block, sampling, diffusion)
        pages = list(range(1, pages_of(limits, length, ratio, config.shift) + 1))
        for slot in range(count):
            table.fill(slot, Request(message, 0.0, len(pages)), pages)
            table.start_block(slot, len(prompt))
        return cls(table, count, length, block)

    def runner(self, model: Transformer, pool: KvPool) -> ModelRunner:
        """That knows the requests; the pool has at least their pages."""
        runner = ModelRunner(model, pool, self.table)
        for slot in range(self.count):
            runner.start(slot)
        return runner

    def long_step(self, most_tokens: int) -> StepBatch:
        """Of as many requests as it holds: a refresh, or a prefill of all."""
        slots = np.arange(min(self.count, max(1, most_tokens // self.length)))
        if not self.table.grid:
            return build_batch(slots, slots[:0], self.table)
        tokens = min(self.length, max(most_tokens // self.block * self.block, self.block))
        for slot in slots.tolist():
            self.table.query(slot, (0, tokens), (0, 0))
        return build_batch(slots[:0], slots, self.table)

    def short_step(self) -> StepBatch:
        """A reuse of all, or a denoising that takes along the block before."""
        slots, start = np.arange(self.count), self.length - self.block
        if self.table.grid:
            for slot in slots.tolist():
                self.table.query(slot, (max(start - self.block, 0), self.length), (start, self.length))
        return build_batch(slots[:0], slots, self.table)


def pages_of(limits: EngineLimits, length: int, ratio: float, shift: int) -> int:
    """Pages of one request of ``length`` tokens."""
    if limits.grid:
        return -(-max(length // limits.grid * limits.grid, limits.grid) // limits.page_size)
    block = min(limits.block_length, max(length // 2, 1))
    return lifetime_pages(length - block, block, block, ratio, limits.page_size, shift)
