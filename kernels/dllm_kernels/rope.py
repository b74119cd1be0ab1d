"""Rotary position embedding, half-split (NeoX) layout, of whole heads or their first dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Root-mean-square norms of each query and each key head: weights ``[head_dim]`` of the model's dtype."""

    q: Tensor
    k: Tensor
    eps: float


def rope_tables(length: int, rotary_dim: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, float32 ``[length, rotary_dim]`` (the half table twice)."""
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.float32, device=device) / rotary_dim
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=device), theta**-exponent)
    angle = torch.cat((angle, angle), dim=1)
    return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first ``rotary_dim`` dimensions of ``x`` ``[tokens, heads, head_dim]`` by each token's
    angles ``cos, sin`` ``[tokens, rotary_dim]``, in float32; the others stay.

    Returns the dtype of ``x``.
    """
    turned = x[..., : cos.shape[-1]].float()
    first, second = turned.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    turned = torch.addcmul(turned * cos[:, None], rotated, sin[:, None]).to(x.dtype)
    rest = x[..., cos.shape[-1] :]
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def rope_to_pages(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    k_pool: Tensor,
    v_pool: Tensor,
    slots: Tensor,
    norms: HeadNorms | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Norm and rotate the queries and keys of ``qkv`` in place, and write K/V of its last rows to the pool.

    Args:
        qkv: ``[tokens, (heads + 2 * kv_heads) * head_dim]``: the query heads, the key heads, the value heads.
        cos, sin: float32 ``[tokens, rotary_dim]``; a head's dimensions behind ``rotary_dim`` do not turn.
        k_pool, v_pool: ``[slots, kv_heads, head_dim]``, written at ``slots``.
        slots: int64 ``[written]``, destinations of the last ``written`` tokens; padding is slot 0, of the
        trash page.

    Returns:
        Views of ``qkv``: q ``[tokens, heads, head_dim]``, k and v ``[tokens, kv_heads, head_dim]``.
    """
    q, k, v = split_heads(qkv, heads, kv_heads)
    q.copy_(apply_rope(q if norms is None else _normed(q, norms.q, norms.eps), cos, sin))
    k.copy_(apply_rope(k if norms is None else _normed(k, norms.k, norms.eps), cos, sin))
    first = qkv.shape[0] - slots.shape[0]
    k_pool[slots], v_pool[slots] = k[first:], v[first:]
    return q, k, v


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Each head of ``x`` ``[tokens, heads, head_dim]`` normed, float32; NaN where its mean square overflows
    it."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return wide * torch.where(scale > 0, scale, torch.nan) * weight.float()


def split_heads(qkv: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of ``[tokens, (heads + 2 * kv_heads) * head_dim]`` by head: q, k and v."""
    by_head = qkv.view(qkv.shape[0], heads + 2 * kv_heads, -1)
    return by_head[:, :heads], by_head[:, heads : heads + kv_heads], by_head[:, heads + kv_heads :]
