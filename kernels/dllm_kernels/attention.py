"""Attention of a step: refresh rows among themselves, others over K/V in pages."""

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

    ``causal_block`` 0: a request's rows see all its keys. Else its rows are whole blocks of so many tokens,
    its last keys are their own, and a row sees what comes before its block and all of that.
    """

    slots: Tensor
    counts: Tensor
    is_padded: bool
    causal_block: int = 0

    @cached_property
    def is_valid(self) -> Tensor | None:
        """Bool like ``slots``; None when nothing is padded."""
        if not self.is_padded:
            return None
        return torch.arange(self.slots.shape[1], device=self.slots.device) < self.counts[:, None]

    def seen_by(self, rows: PaddedRows) -> Tensor | None:
        """Bool ``[requests, rows, keys]``, ``rows`` 1 where all see the same; None when all is seen."""
        if not self.causal_block:
            return None if self.is_valid is None else self.is_valid[:, None]
        row, key = (
            torch.arange(size, device=self.slots.device) for size in (rows.longest, self.slots.shape[1])
        )
        own = (row // self.causal_block + 1) * self.causal_block
        return key < (self.counts - rows.lengths)[:, None, None] + own[:, None]


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[PaddedRows], out: Tensor) -> None:
    """Full attention inside each request, for requests of any lengths.

    Args:
        q: ``[rows, heads, head_dim]``. k, v: ``[rows, kv_heads, head_dim]``; heads is a multiple of kv_heads.
        out: ``[rows, heads, head_dim]``, written at the groups' rows.
    """
    for group in groups:
        is_seen = None if group.is_valid is None else group.is_valid[:, None]
        dense = _attend(group.gather(q), group.gather(k), group.gather(v), is_seen)
        group.scatter(dense, out)


def paged_attention(
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    groups: Sequence[tuple[PaddedRows, PagedKeys]],
    out: Tensor,
) -> None:
    """Attention of each request's rows over its pages (keys are stored after RoPE, so their order is free).

    Args:
        q: ``[rows, heads, head_dim]``. k_pool, v_pool: ``[slots, kv_heads, head_dim]``.
        out: ``[rows, heads, head_dim]``, written at the groups' rows.
    """
    for rows, keys in groups:
        # The trash page, where padding points, holds whatever was written last.
        k, v = (cleared(pool[keys.slots], keys.is_valid) for pool in (k_pool, v_pool))
        dense = _attend(rows.gather(q), k, v, keys.seen_by(rows))
        rows.scatter(dense, out)


def _attend(q: Tensor, k: Tensor, v: Tensor, is_seen: Tensor | None) -> Tensor:
    """``q`` [n, length, heads, dim] over ``k, v`` [n, keys, kv_heads, dim], of which ``is_seen`` [n, length
    or 1, keys] are seen; queries of a head group fold into one length."""
    count, length, heads, dim = q.shape
    kv_heads = k.shape[2]
    folded = q.view(count, length, kv_heads, heads // kv_heads, dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
    mask = None if is_seen is None else is_seen[:, None]
    if mask is not None and mask.shape[2] > 1:
        mask = mask.repeat(1, 1, heads // kv_heads, 1)
    result = F.scaled_dot_product_attention(folded, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return result.reshape(count, heads, length, dim).transpose(1, 2)
