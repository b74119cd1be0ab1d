"""Baselines as research code decodes: no cache one at a time, and a static batch with a dual cache.

Both use the engine's own weights and linear layers, so that the difference is the way of decoding: dense
padded batches,
logits of every row, no early exit, a batch that lasts as long as its longest request.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dllm_server.models.transformer import Transformer
from torch import Tensor

from benchmarks.workload import BLOCK, Job

Cache = list[tuple[Tensor, Tensor]]


@torch.inference_mode()
def decode_without_cache(model: Transformer, job: Job, quota: int) -> list[int]:
    """LLaDA's official loop: a full forward every step, the ``quota`` most confident masked tokens
    committed."""
    start, end = len(job.prompt), len(job.prompt) + job.max_tokens
    canvas = torch.tensor([job.prompt + [model.config.mask_token_id] * job.max_tokens])
    is_masked = torch.arange(end)[None] >= start
    valid = torch.ones(1, end, dtype=torch.bool)
    for block_start in range(start, end, BLOCK):
        block = slice(block_start, min(block_start + BLOCK, end))
        while is_masked[:, block].any():
            hidden, _ = _forward(model, canvas, torch.arange(end)[None], valid, None, None)
            _commit(model, hidden, canvas, is_masked, slice(0, end), block, quota)
    return canvas[0, start:].tolist()


@torch.inference_mode()
def decode_static_batch(model: Transformer, jobs: Sequence[Job], quota: int) -> list[list[int]]:
    """Fast-dLLM's dual cache for a fixed batch: prompts padded left, canvases to the longest, blocks in
    lock-step."""
    longest = max(len(job.prompt) for job in jobs)
    generated = max(job.max_tokens for job in jobs)
    end = longest + generated
    canvas = torch.full((len(jobs), end), model.config.mask_token_id)
    valid = torch.ones(len(jobs), end, dtype=torch.bool)
    for row, job in enumerate(jobs):
        pad = longest - len(job.prompt)
        canvas[row, :longest] = torch.tensor([model.config.eos_token_id] * pad + job.prompt)
        valid[row, :pad] = False
    positions = (valid.cumsum(dim=1) - 1).clamp_min(0)
    is_masked = (torch.arange(end) >= longest).expand(len(jobs), end).clone()
    for block_start in range(longest, end, BLOCK):
        block = slice(block_start, min(block_start + BLOCK, end))
        hidden, cache = _forward(model, canvas, positions, valid, None, None)
        _commit(model, hidden, canvas, is_masked, slice(0, end), block, quota)
        while is_masked[:, block].any():
            hidden, _ = _forward(model, canvas[:, block], positions[:, block], valid, cache, block)
            _commit(model, hidden, canvas, is_masked, block, block, quota)
    return [canvas[row, longest : longest + job.max_tokens].tolist() for row, job in enumerate(jobs)]


def _forward(
    model: Transformer,
    token_ids: Tensor,
    positions: Tensor,
    valid: Tensor,
    cache: Cache | None,
    block: slice | None,
) -> tuple[Tensor, Cache]:
    """Dense forward of ``[batch, length]``; with a cache the block's K/V replace its positions."""
    batch, length = token_ids.shape
    fresh: Cache = []

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries = q.view(batch, length, *q.shape[1:]).transpose(1, 2)
        keys, values = k.view(batch, length, *k.shape[1:]), v.view(batch, length, *v.shape[1:])
        if cache is not None:
            cache[layer][0][:, block], cache[layer][1][:, block] = keys, values
            keys, values = cache[layer]
        else:
            fresh.append((keys, values))
        mask = None if bool(valid.all()) else valid[:, None, None, :]
        out = F.scaled_dot_product_attention(
            queries, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
        )
        return out.transpose(1, 2).reshape(batch * length, -1)

    hidden = model.forward(token_ids.reshape(-1), positions.reshape(-1), attend)
    return model.final_norm(hidden).view(batch, length, -1), fresh


def _commit(
    model: Transformer,
    hidden: Tensor,
    canvas: Tensor,
    is_masked: Tensor,
    rows: slice,
    block: slice,
    quota: int,
) -> None:
    """Logits of all rows, softmax in float64, then the block's ``quota`` most confident masked tokens."""
    logits = F.linear(hidden, model.lm_head)
    logits[..., model.config.mask_token_id] = -torch.inf
    probability, token = logits.double().softmax(dim=-1).max(dim=-1)
    offset = block.start - rows.start
    inside = slice(offset, offset + block.stop - block.start)
    confidence = probability[:, inside].masked_fill(~is_masked[:, block], -torch.inf)
    chosen = torch.zeros_like(is_masked[:, block])
    chosen.scatter_(1, confidence.topk(min(quota, confidence.shape[1]), dim=1).indices, True)
    chosen &= is_masked[:, block]
    canvas[:, block] = torch.where(chosen, token[:, inside], canvas[:, block])
    is_masked[:, block] &= ~chosen
