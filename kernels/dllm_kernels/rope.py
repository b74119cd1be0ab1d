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
