"""Rotary embedding of a step's queries and keys in place, and K/V of its reuse rows to their pages."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, kernel, overlapping, power_of_two
from dllm_kernels.rope import split_heads

KERNEL = "rope"


@kernel("qkv", "cos", "sin", "slots", "first_written")
def _rotate(
    qkv: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    k_pool: tl.tensor,
    v_pool: tl.tensor,
    slots: tl.tensor,
    first_written: tl.tensor,
    qkv_row: tl.tensor,
    k_slot: tl.tensor,
    k_head: tl.tensor,
    v_slot: tl.tensor,
    v_head: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    half: tl.constexpr,
    block_half: tl.constexpr,
    block_heads: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    """One program: ``block_heads`` heads (queries, keys, then values) of one token."""
    await_inputs(overlaps)
    row = tl.program_id(0).to(tl.int64)
    is_written = row >= first_written
    if (tl.program_id(1) * block_heads >= heads + kv_heads) & (row < first_written):
        return
    head = tl.program_id(1) * block_heads + tl.arange(0, block_heads)
    dim = tl.arange(0, block_half)
    is_dim = (dim < half)[None, :]
    is_head = (head < heads + 2 * kv_heads)[:, None] & is_dim
    is_turned = (head < heads + kv_heads)[:, None] & is_dim
    place = qkv + row * qkv_row + head[:, None] * (2 * half) + dim[None, :]
    angle = row * 2 * half + dim
    turn = tl.load(cos + angle, mask=dim < half, other=1.0)[None, :]
    lift = tl.load(sin + angle, mask=dim < half, other=0.0)[None, :]
    first = tl.load(place, mask=is_head, other=0.0)
    second = tl.load(place + half, mask=is_head, other=0.0)
    wide, other = first.to(tl.float32), second.to(tl.float32)
    first = tl.where(is_turned, (wide * turn - other * lift).to(first.dtype), first)
    second = tl.where(is_turned, (other * turn + wide * lift).to(second.dtype), second)
    tl.store(place, first, mask=is_turned)
    tl.store(place + half, second, mask=is_turned)
    if is_written:
        slot = tl.load(slots + row - first_written)
        is_key = is_turned & (head >= heads)[:, None]
        k_place = k_pool + slot * k_slot + (head - heads)[:, None] * k_head + dim[None, :]
        tl.store(k_place, first, mask=is_key)
        tl.store(k_place + half, second, mask=is_key)
        is_value = is_head & (head >= heads + kv_heads)[:, None]
        v_place = v_pool + slot * v_slot + (head - heads - kv_heads)[:, None] * v_head + dim[None, :]
        tl.store(v_place, first, mask=is_value)
        tl.store(v_place + half, second, mask=is_value)


def key_of(tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: str) -> Key:
    return bucket(tokens), heads, kv_heads, head_dim, dtype


def rope_to_pages(
    table: ConfigurationTable,
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    k_pool: Tensor,
    v_pool: Tensor,
    slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Twin of ``dllm_kernels.rope.rope_to_pages``; ``cos`` and ``sin`` are contiguous."""
    q, k, v = split_heads(qkv, heads, kv_heads)
    tokens, half = qkv.shape[0], q.shape[2] // 2
    dtype = str(qkv.dtype).removeprefix("torch.")
    configuration = table.get(KERNEL, key_of(tokens, heads, kv_heads, q.shape[2], dtype))
    if tokens:
        _rotate[(tokens, cdiv(heads + 2 * kv_heads, configuration.blocks["block_heads"]))](
            qkv,
            cos,
            sin,
            k_pool,
            v_pool,
            slots,
            tokens - slots.shape[0],
            qkv.stride(0),
            *k_pool.stride()[:2],
            *v_pool.stride()[:2],
            heads=heads,
            kv_heads=kv_heads,
            half=half,
            block_half=power_of_two(half),
            **configuration.launch,
            **overlapping(qkv),
        )
    return q, k, v
