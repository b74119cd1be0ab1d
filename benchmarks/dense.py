"""A dense, padded forward pass as research code writes it: plain PyTorch on the engine's weights, none of its
operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from dllm_server.models.transformer import Transformer
from torch import Tensor

Cache = list[tuple[Tensor, Tensor]]
"""K and V of each layer after RoPE, ``[batch, heads, length, dim]``."""


def forward(
    model: Transformer,
    token_ids: Tensor,
    positions: Tensor,
    is_valid: Tensor | None,
    cache: Cache | None = None,
    block: slice | None = None,
) -> tuple[Tensor, Cache]:
    """Hidden states ``[batch, length, d_model]`` after the final norm, and K/V of every position.

    With a cache, ``token_ids`` are those of ``block``, whose fresh K/V replace the cached ones in place.

    Args:
        token_ids, positions: int64 ``[batch, length]``.
        is_valid: bool ``[batch, keys]``, False for padding; None without any.
    """
    config, weights = model.config, model.weights
    heads, kv_heads, dim = config.n_heads, config.n_kv_heads, config.head_dim
    cos, sin = model.cos[positions][:, None], model.sin[positions][:, None]
    mask = None if is_valid is None else is_valid[:, None, None, :]
    fresh: Cache = []
    hidden = F.embedding(token_ids, weights["embedding"])
    for layer in range(config.n_layers):
        normed = _norm(hidden, weights["attention_norm"][layer], config.rms_norm_eps)
        bias = weights["qkv_bias"][layer] if config.has_qkv_bias else None
        projected = F.linear(normed, weights["qkv"][layer], bias)
        by_head = projected.view(*projected.shape[:2], -1, dim).transpose(1, 2)
        q, k, v = torch.split(by_head, [heads, kv_heads, kv_heads], dim=1)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if cache is not None and block is not None:
            keys, values = cache[layer]
            keys[:, :, block], values[:, :, block] = k, v
        else:
            keys, values = k, v.contiguous()
            fresh.append((keys, values))
        attended = F.scaled_dot_product_attention(
            q, keys, values, attn_mask=mask, enable_gqa=heads != kv_heads
        )
        attended = attended.transpose(1, 2).flatten(2)
        hidden = hidden + F.linear(attended, weights["attention_out"][layer])
        normed = _norm(hidden, weights["mlp_norm"][layer], config.rms_norm_eps)
        gate, up = F.linear(normed, weights["gate_up"][layer]).chunk(2, dim=-1)
        hidden = hidden + F.linear(F.silu(gate) * up, weights["down"][layer])
    return _norm(hidden, weights["final_norm"], config.rms_norm_eps), cache or fresh


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split RoPE in float32; ``cos, sin`` [batch, 1, length, dim]."""
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-second, first), dim=-1) * sin).to(x.dtype)
