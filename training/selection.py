"""Which keys outside the block a head keeps for the block's later forwards."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

POOL_WIDTH = 3


@torch.no_grad()
def kept_counts(visible: Tensor, block_tokens: int, retention: Tensor) -> Tensor:
    """max(1, floor(r (N - B))) for `visible` [batch, tokens] and `retention` [batch]."""
    outside = visible.sum(-1) - block_tokens
    return (retention * outside + 1e-4).long().clamp(min=1)


@torch.no_grad()
def select_keys(
    queries: Tensor, keys: Tensor, candidates: Tensor, kept: Tensor, *, is_shared: bool = False
) -> Tensor:
    """Keep the `kept` best candidates of every head by the mean query's score, max-pooled over neighbours.

    `queries` [batch, heads, block, head_dim] and `keys` [batch, heads, tokens, head_dim] are rotated,
    `candidates` [batch, tokens] is bool, `kept` [batch]. Returns bool [batch, heads, tokens].
    `is_shared` gives every head one set, by the heads' mean score: the baseline to compare with.
    """
    mean = queries.float().mean(2).to(keys.dtype)
    scores = torch.einsum("bhd,bhnd->bhn", mean, keys).float()
    if is_shared:
        scores = scores.mean(1, keepdim=True).expand_as(scores)
    scores = scores.masked_fill(~candidates[:, None], -torch.inf)
    pooled = F.max_pool1d(scores, POOL_WIDTH, stride=1, padding=POOL_WIDTH // 2)
    pooled = pooled.masked_fill(~candidates[:, None], -torch.inf)
    order = pooled.argsort(dim=-1, descending=True, stable=True)
    chosen = torch.arange(keys.shape[2], device=keys.device) < kept[:, None, None]
    return torch.zeros_like(candidates[:, None].expand_as(order)).scatter(2, order, chosen.expand_as(order))
