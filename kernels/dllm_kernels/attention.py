"""Bidirectional attention of a step: refresh rows among themselves, reuse rows over pages of packed K/V."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.layout import PaddedRows, cleared


@dataclass(frozen=True)
class PagedKeys:
    """Where the K/V of a group of reuse requests lie.

    ``slots`` int64 ``[requests, keys]`` indexes the pool's flat slots (page * page_size + offset): the
    packed context, then the block's own slots, then padding. ``counts`` int32 ``[requests]`` says how many
    slots come before the padding; ``is_padded`` whether any is.
    """

    slots: Tensor
    counts: Tensor
    is_padded: bool

    @cached_property
    def is_valid(self) -> Tensor | None:
        """Bool like ``slots``; None when nothing is padded."""
        if not self.is_padded:
            return None
        return torch.arange(self.slots.shape[1], device=self.slots.device) < self.counts[:, None]


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[PaddedRows], out: Tensor) -> None:
    """Full attention inside each request, for requests of any lengths.

    Args:
        q: ``[rows, heads, head_dim]``. k, v: ``[rows, kv_heads, head_dim]``; heads is a multiple of kv_heads.
        out: ``[rows, heads, head_dim]``, written at the groups' rows.
    """
    for group in groups:
        dense = _attend(group.gather(q), group.gather(k), group.gather(v), group.is_valid)
        group.scatter(dense, out)


def paged_attention(
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    groups: Sequence[tuple[PaddedRows, PagedKeys]],
    out: Tensor,
) -> None:
    """Attention of each reuse request's block over its pages (keys are stored after RoPE, so their order is
    free).

    Args:
        q: ``[rows, heads, head_dim]``. k_pool, v_pool: ``[slots, kv_heads, head_dim]``.
        out: ``[rows, heads, head_dim]``, written at the groups' rows.
    """
    for rows, keys in groups:
        # The trash page, where padding points, holds whatever was written last.
        k, v = (cleared(pool[keys.slots], keys.is_valid) for pool in (k_pool, v_pool))
        dense = _attend(rows.gather(q), k, v, keys.is_valid)
        rows.scatter(dense, out)


def _attend(q: Tensor, k: Tensor, v: Tensor, is_valid_key: Tensor | None) -> Tensor:
    """``q`` [n, length, heads, dim] over ``k, v`` [n, keys, kv_heads, dim]; queries of a head group fold
    into one length."""
    count, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    folded = q.view(count, length, kv_heads, heads // kv_heads, dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = None if is_valid_key is None else is_valid_key[:, None, None, :]
    result = F.scaled_dot_product_attention(folded, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return result.reshape(count, heads, length, dim).transpose(1, 2)
