"""Steps of every kind before the first request, so that nothing is compiled or first allocated later."""

from __future__ import annotations

import numpy as np

from dllm_server.engine.device.kv_pool import KvPool
from dllm_server.engine.device.model_runner import ModelRunner
from dllm_server.engine.requests.messages import Diffusion, Generate, Sampling
from dllm_server.engine.requests.request import Request
from dllm_server.engine.requests.slots import SlotTable
from dllm_server.engine.schedule.batch import build_batch
from dllm_server.memory import EngineLimits, lifetime_pages
from dllm_server.models.transformer import Transformer
from dllm_server.settings import Confidence, Strategy

_SMALLEST_TOKENS = 32


def rehearse(model: Transformer, pool: KvPool, limits: EngineLimits) -> None:
    """Refresh and reuse at each power of two of the length, then of the number of requests; greedy and
    sampled, keeping all and a part. The pool must be nobody's yet."""
    lengths = {limits.max_model_len}
    while min(lengths) // 2 >= _SMALLEST_TOKENS:
        lengths.add(min(lengths) // 2)
    counts = [1 << power for power in range(limits.max_num_seqs.bit_length())]
    for length in sorted(lengths):
        for ratio in {1.0, min(0.5, limits.retention_ratio)}:
            _run(model, pool, limits, 1, length, ratio, temperature=0.0)
    for count in counts:
        for temperature in (0.0, 1.0):
            _run(model, pool, limits, count, min(lengths), limits.retention_ratio, temperature=temperature)


def _run(
    model: Transformer,
    pool: KvPool,
    limits: EngineLimits,
    count: int,
    length: int,
    ratio: float,
    *,
    temperature: float,
) -> None:
    """``count`` requests of ``length`` tokens: a refresh of as many as a step holds, a reuse of all."""
    block = min(limits.block_length, max(length // 2, 1))
    prompt, shift = length - block, model.config.shift
    pages = lifetime_pages(prompt, block, block, ratio, limits.page_size, shift)
    if pages > pool.allocator.pages:
        return
    table = SlotTable(
        count,
        length,
        max_pages=pages,
        page_size=limits.page_size,
        mask_token_id=model.config.mask_token_id,
        shift=shift,
    )
    diffusion = Diffusion(block, None, Strategy.QUOTA, 1.0, Confidence.PROBABILITY, ratio)
    sampling = Sampling(temperature=temperature)
    message = Generate("rehearsal", [model.config.eos_token_id] * prompt, block, sampling, diffusion)
    runner = ModelRunner(model, pool, table)
    for slot in range(count):
        table.fill(slot, Request(message, 0.0, pages), list(range(1, pages + 1)))
        runner.start(slot)
    whole = np.arange(min(count, max(1, limits.max_num_batched_tokens // length)))
    runner.launch(build_batch(whole, np.arange(0), table), limits.max_num_logits).result()
    if block > 1:
        runner.launch(build_batch(np.arange(0), np.arange(count), table), limits.max_num_logits).result()
