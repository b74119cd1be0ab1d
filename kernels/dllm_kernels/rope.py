"""Rotary position embedding, half-split (NeoX) layout."""

from __future__ import annotations

import torch
from torch import Tensor


def rope_tables(length: int, head_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, float32 ``[length, head_dim]`` (the half table twice)."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), theta**-exponent)
    angle = torch.cat((angle, angle), dim=1)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` ``[tokens, heads, head_dim]`` by each token's angles ``cos, sin`` ``[tokens, head_dim]``,
    in float32.

    Returns the dtype of ``x``.
    """
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return torch.addcmul(wide * cos[:, None], rotated, sin[:, None]).to(x.dtype)


def rope_to_pages(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    k_pool: Tensor,
    v_pool: Tensor,
    slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate the queries and keys of ``qkv`` in place, and write K/V of its last rows to the pool.

    Args:
        qkv: ``[tokens, (heads + 2 * kv_heads) * head_dim]``: the query heads, the key heads, the value heads.
        cos, sin: float32 ``[tokens, head_dim]``.
        k_pool, v_pool: ``[slots, kv_heads, head_dim]``, written at ``slots``.
        slots: int64 ``[written]``, destinations of the last ``written`` tokens; padding is slot 0, of the
        trash page.

    Returns:
        Views of ``qkv``: q ``[tokens, heads, head_dim]``, k and v ``[tokens, kv_heads, head_dim]``.
    """
    q, k, v = split_heads(qkv, heads, kv_heads)
    q.copy_(apply_rope(q, cos, sin))
    k.copy_(apply_rope(k, cos, sin))
    first = qkv.shape[0] - slots.shape[0]
    k_pool[slots], v_pool[slots] = k[first:], v[first:]
    return q, k, v


def split_heads(qkv: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of ``[tokens, (heads + 2 * kv_heads) * head_dim]`` by head: q, k and v."""
    by_head = qkv.view(qkv.shape[0], heads + 2 * kv_heads, -1)
    return by_head[:, :heads], by_head[:, heads : heads + kv_heads], by_head[:, heads + kv_heads :]
