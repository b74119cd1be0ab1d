"""The two forwards of decoding: a refresh over the whole sequence, a reuse of the block alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.attention import attention
from training.model import MaskedDiffusionModel
from training.selection import kept_counts, select_keys

BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """Left-padded rows of one length: where a row's own tokens begin and where its current block is."""

    visible: Tensor  # bool [batch, tokens]
    block: Tensor  # positions of the current block [batch, BLOCK_TOKENS]

    @classmethod
    def of(cls, length: int, first: Tensor, block_start: Tensor) -> Layout:
        """`first` and `block_start` [batch] are positions in rows of `length`."""
        positions = torch.arange(length, device=first.device)
        block = block_start[:, None] + positions[:BLOCK_TOKENS]
        return cls(positions >= first[:, None], block)

    @property
    def outside(self) -> Tensor:
        """Visible positions that are not the block's, bool [batch, tokens]."""
        return self.visible.scatter(1, self.block, torch.zeros_like(self.block, dtype=torch.bool))


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Keys and values [batch, heads, tokens, head_dim] of a refresh and the block's queries in it."""

    keys: Tensor
    values: Tensor
    block_queries: Tensor  # [batch, heads, BLOCK_TOKENS, head_dim]


def refresh(
    model: MaskedDiffusionModel, tokens: Tensor, layout: Layout, dtype: torch.dtype
) -> tuple[Tensor, list[LayerCache]]:
    """Hidden states of the block's rows [batch, BLOCK_TOKENS, d_model], and every layer's cache."""
    rotation = model.rotation(torch.arange(tokens.shape[1], device=tokens.device)[None])
    mask = layout.visible[:, None, None]
    hidden = model.embed(tokens, dtype)
    rows = layout.block[:, None, :, None].expand(-1, model.shape.n_heads, -1, model.shape.head_dim)
    caches: list[LayerCache] = []
    for index, layer in enumerate(model.layers):
        queries, keys, values = model.project(layer, hidden, rotation)
        block_queries = queries.gather(2, rows)
        caches.append(LayerCache(keys, values, block_queries))
        if index == model.shape.n_layers - 1:
            queries = block_queries
            hidden = hidden.gather(1, layout.block[:, :, None].expand(-1, -1, hidden.shape[-1]))
        attended = attention(queries, keys, values, mask)
        hidden = model.merge(layer, hidden, attended)
    return hidden, caches


def select(
    caches: list[LayerCache], layout: Layout, retention: Tensor, *, is_shared: bool = False
) -> list[Tensor]:
    """The keys each layer's heads keep: bool [batch, heads, tokens]. `retention` [batch]."""
    kept = kept_counts(layout.visible, BLOCK_TOKENS, retention)
    outside = layout.outside
    return [
        select_keys(cache.block_queries, cache.keys, outside, kept, is_shared=is_shared) for cache in caches
    ]


def reuse(
    model: MaskedDiffusionModel,
    block_tokens: Tensor,
    layout: Layout,
    caches: list[LayerCache],
    kept: list[Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Hidden states of the block [batch, BLOCK_TOKENS, d_model] over kept stale keys and its own."""
    rotation = model.rotation(layout.block)
    hidden = model.embed(block_tokens, dtype)
    for layer, cache, keep in zip(model.layers, caches, kept, strict=True):
        queries, keys, values = model.project(layer, hidden, rotation)
        mask = F.pad(keep, (0, BLOCK_TOKENS), value=True)[:, :, None]
        every_key, every_value = torch.cat((cache.keys, keys), 2), torch.cat((cache.values, values), 2)
        attended = attention(queries, every_key, every_value, mask)
        hidden = model.merge(layer, hidden, attended)
    return hidden
