"""Baselines as research code decodes: no cache one at a time, and a static batch with a dual cache.

Both use the engine's weights and nothing else of it: dense padded batches, logits of every row, their softmax
in float64, no early exit, a batch that lasts as long as its longest request.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from dllm_server.models.transformer import Transformer
from torch import Tensor

from benchmarks.dense import forward
from benchmarks.job import BLOCK, Job


@torch.inference_mode()
def decode_without_cache(model: Transformer, job: Job, quota: int, *, block: int = BLOCK) -> list[int]:
    """LLaDA's official loop: a full forward every step, the ``quota`` most confident masked tokens
    committed."""
    start, end = len(job.prompt), len(job.prompt) + job.max_tokens
    masks = [model.config.mask_token_id] * job.max_tokens
    canvas = torch.tensor([job.prompt + masks], device=model.device)
    positions = torch.arange(end, device=model.device)[None]
    is_masked = positions >= start
    for block_start in range(start, end, block):
        part = slice(block_start, min(block_start + block, end))
        while is_masked[:, part].any():
            hidden, _ = forward(model, canvas, positions, None)
            _commit(model, hidden, canvas, is_masked, slice(0, end), part, quota)
    return canvas[0, start:].tolist()


@torch.inference_mode()
def decode_static_batch(
    model: Transformer,
    jobs: Sequence[Job],
    quota: int,
    *,
    block: int = BLOCK,
    blocks: int | None = None,
) -> list[list[int]]:
    """Fast-dLLM's dual cache for a fixed batch: prompts padded left, canvases to the longest, blocks in
    lock-step. Only the first ``blocks`` blocks are decoded, if given; the canvas stays as long."""
    longest = max(len(job.prompt) for job in jobs)
    end = longest + max(job.max_tokens for job in jobs)
    rows, is_valid = [], []
    for job in jobs:
        pad = longest - len(job.prompt)
        masks = [model.config.mask_token_id] * (end - longest)
        rows.append([model.config.eos_token_id] * pad + job.prompt + masks)
        is_valid.append([False] * pad + [True] * (end - pad))
    canvas = torch.tensor(rows, device=model.device)
    valid = torch.tensor(is_valid, device=model.device)
    positions = (valid.cumsum(dim=1) - 1).clamp_min(0)
    is_masked = (torch.arange(end, device=model.device) >= longest).repeat(len(jobs), 1)
    padding = None if all(len(job.prompt) == longest for job in jobs) else valid
    for block_start in range(longest, end, block)[:blocks]:
        part = slice(block_start, min(block_start + block, end))
        hidden, cache = forward(model, canvas, positions, padding)
        _commit(model, hidden, canvas, is_masked, slice(0, end), part, quota)
        while is_masked[:, part].any():
            hidden, cache = forward(model, canvas[:, part], positions[:, part], padding, cache, part)
            _commit(model, hidden, canvas, is_masked, part, part, quota)
    tokens: list[list[int]] = canvas[:, longest:].tolist()
    return [row[: job.max_tokens] for row, job in zip(tokens, jobs, strict=True)]


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
    probability, token = F.softmax(logits, dim=-1, dtype=torch.float64).max(dim=-1)
    offset = block.start - rows.start
    inside = slice(offset, offset + block.stop - block.start)
    confidence = probability[:, inside].masked_fill(~is_masked[:, block], -torch.inf)
    chosen = torch.zeros_like(is_masked[:, block])
    chosen.scatter_(1, confidence.topk(min(quota, confidence.shape[1]), dim=1).indices, True)
    chosen &= is_masked[:, block]
    canvas[:, block] = torch.where(chosen, token[:, inside], canvas[:, block])
    is_masked[:, block] &= ~chosen
