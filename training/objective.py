"""The training loss: a refresh with the block partly masked, then a reuse with more of it committed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.forward import BLOCK_TOKENS, Layout, refresh, reuse, select
from training.model import MaskedDiffusionModel

PADDING_WEIGHT = 0.1
FULLY_MASKED_SHARE = 0.4
DENSE_SHARE = 0.3
MIN_RETENTION = 0.1


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Left-padded rows, sorted into one length. All tensors int64 on the model's device."""

    tokens: Tensor  # [batch, tokens], clean
    first: Tensor  # [batch], position of the row's first token
    block_start: Tensor  # [batch]
    answer_end: Tensor  # [batch], position of the first end-of-text
    family: Tensor  # [batch], index in FAMILIES; for the log alone


def block_loss(logits: Tensor, targets: Tensor, is_masked: Tensor, weights: Tensor) -> Tensor:
    """Each row's weighted mean over its masked tokens, [batch]: the 1/t weight with the drawn t."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    weights = weights * is_masked
    return (losses * weights).sum(1) / weights.sum(1).clamp(min=1e-3)


def draw_masks(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Masked states of the block at the refresh and, a subset of it, at the reuse: bool [rows, block]."""
    device = generator.device
    ratio = torch.rand(rows, 1, device=device, generator=generator)
    ratio = torch.where(
        torch.rand(rows, 1, device=device, generator=generator) < FULLY_MASKED_SHARE, 1.0, ratio
    )
    noise = torch.rand(rows, BLOCK_TOKENS, device=device, generator=generator)
    at_refresh = noise < ratio
    later_ratio = torch.rand(rows, 1, device=device, generator=generator)
    at_reuse = at_refresh & (torch.rand(rows, BLOCK_TOKENS, device=device, generator=generator) < later_ratio)
    return at_refresh, at_reuse


def diffusion_loss(
    model: MaskedDiffusionModel,
    batch: MicroBatch,
    mask_token_id: int,
    generator: torch.Generator,
    *,
    with_reuse: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Each row's loss at the refresh and at the reuse over stale, pruned keys (zero unless `with_reuse`).

    Blocks before the current one are clean, later ones fully masked, as in decoding.
    """
    rows, length = batch.tokens.shape
    layout = Layout.of(length, batch.first, batch.block_start)
    at_refresh, at_reuse = draw_masks(rows, generator)
    targets = batch.tokens.gather(1, layout.block)
    weights = torch.where(layout.block <= batch.answer_end[:, None], 1.0, PADDING_WEIGHT)

    positions = torch.arange(length, device=batch.tokens.device)
    is_masked = positions >= batch.block_start[:, None] + BLOCK_TOKENS
    is_masked = is_masked.scatter(1, layout.block, at_refresh)
    hidden, caches = refresh(model, batch.tokens.masked_fill(is_masked, mask_token_id), layout, dtype)
    refresh_loss = block_loss(model.logits(hidden), targets, at_refresh, weights)
    if not with_reuse:
        return refresh_loss, torch.zeros_like(refresh_loss)

    uniform = torch.rand(rows, device=batch.tokens.device, generator=generator)
    dense = torch.rand(rows, device=batch.tokens.device, generator=generator) < DENSE_SHARE
    retention = torch.where(dense, 1.0, MIN_RETENTION + (1 - MIN_RETENTION) * uniform**1.5)
    kept = select(caches, layout, retention)
    hidden = reuse(model, targets.masked_fill(at_reuse, mask_token_id), layout, caches, kept, dtype)
    return refresh_loss, block_loss(model.logits(hidden), targets, at_reuse, weights)
