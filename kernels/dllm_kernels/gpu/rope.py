"""Head norms and rotary embedding of a step's queries and keys in place, and K/V of its reuse rows to their
pages."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, jit, kernel, overlapping, power_of_two
from dllm_kernels.rope import HeadNorms, split_heads

KERNEL = "rope"


@kernel("qkv", "cos", "sin", "slots", "first_written", "q_gain", "k_gain")
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
    q_gain: tl.tensor,
    k_gain: tl.tensor,
    eps: tl.tensor,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    half: tl.constexpr,
    block_half: tl.constexpr,
    block_rest: tl.constexpr,
    is_normed: tl.constexpr,
    block_heads: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    """One program: ``block_heads`` heads (queries, keys, then values) of one token. A head is the two halves
    that turn and, where ``block_rest`` is not 0, the rest that does not."""
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
    start = qkv + row * qkv_row + head[:, None] * head_dim
    place = start + dim[None, :]
    angle = row * 2 * half + dim
    turn = tl.load(cos + angle, mask=dim < half, other=1.0)[None, :]
    lift = tl.load(sin + angle, mask=dim < half, other=0.0)[None, :]
    first = tl.load(place, mask=is_head, other=0.0)
    second = tl.load(place + half, mask=is_head, other=0.0)
    wide, other = first.to(tl.float32), second.to(tl.float32)
    if block_rest:
        rest_dim = 2 * half + tl.arange(0, block_rest)
        is_rest = (rest_dim < head_dim)[None, :]
        rest = tl.load(
            start + rest_dim[None, :], mask=(head < heads + 2 * kv_heads)[:, None] & is_rest, other=0.0
        )
    if is_normed:
        is_query = (head < heads)[:, None]
        square = tl.sum(wide * wide, 1) + tl.sum(other * other, 1)
        if block_rest:
            wide_rest = rest.to(tl.float32)
            square += tl.sum(wide_rest * wide_rest, 1)
        scale = 1.0 / tl.sqrt(square / head_dim + eps)
        scale = tl.where(scale > 0, scale, float("nan"))[:, None]  # the mean square has overflowed
        wide *= scale * _gain(q_gain, k_gain, is_query, dim, dim < half)
        other *= scale * _gain(q_gain, k_gain, is_query, half + dim, dim < half)
        if block_rest:
            wide_rest *= scale * _gain(q_gain, k_gain, is_query, rest_dim, rest_dim < head_dim)
            is_turned_rest = (head < heads + kv_heads)[:, None] & is_rest
            rest = tl.where(is_turned_rest, wide_rest.to(rest.dtype), rest)
            tl.store(start + rest_dim[None, :], rest, mask=is_turned_rest)
    first = tl.where(is_turned, (wide * turn - other * lift).to(first.dtype), first)
    second = tl.where(is_turned, (other * turn + wide * lift).to(second.dtype), second)
    tl.store(place, first, mask=is_turned)
    tl.store(place + half, second, mask=is_turned)
    if is_written:
        slot = tl.load(slots + row - first_written)
        is_key = (head >= heads)[:, None] & (head < heads + kv_heads)[:, None]
        k_start = k_pool + slot * k_slot + (head - heads)[:, None] * k_head
        tl.store(k_start + dim[None, :], first, mask=is_key & is_dim)
        tl.store(k_start + half + dim[None, :], second, mask=is_key & is_dim)
        is_value = (head >= heads + kv_heads)[:, None] & (head < heads + 2 * kv_heads)[:, None]
        v_start = v_pool + slot * v_slot + (head - heads - kv_heads)[:, None] * v_head
        tl.store(v_start + dim[None, :], first, mask=is_value & is_dim)
        tl.store(v_start + half + dim[None, :], second, mask=is_value & is_dim)
        if block_rest:
            tl.store(k_start + rest_dim[None, :], rest, mask=is_key & is_rest)
            tl.store(v_start + rest_dim[None, :], rest, mask=is_value & is_rest)


@jit
def _gain(
    q_gain: tl.tensor, k_gain: tl.tensor, is_query: tl.tensor, dim: tl.tensor, mask: tl.tensor
) -> tl.tensor:
    """The norm's weights ``[heads, dim]``, of queries or keys."""
    of_queries = tl.load(q_gain + dim, mask=mask, other=0.0).to(tl.float32)
    of_keys = tl.load(k_gain + dim, mask=mask, other=0.0).to(tl.float32)
    return tl.where(is_query, of_queries[None, :], of_keys[None, :])


def key_of(
    tokens: int, heads: int, kv_heads: int, head_dim: int, rotary_dim: int, *, is_normed: bool, dtype: str
) -> Key:
    return bucket(tokens), heads, kv_heads, head_dim, rotary_dim, "normed" if is_normed else "plain", dtype


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
    norms: HeadNorms | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Twin of ``dllm_kernels.rope.rope_to_pages``; ``cos`` and ``sin`` are contiguous."""
    q, k, v = split_heads(qkv, heads, kv_heads)
    tokens, head_dim, rotary_dim = qkv.shape[0], q.shape[2], cos.shape[1]
    key = key_of(
        tokens,
        heads,
        kv_heads,
        head_dim,
        rotary_dim,
        is_normed=norms is not None,
        dtype=str(qkv.dtype).removeprefix("torch."),
    )
    configuration = table.get(KERNEL, key)
    rest = head_dim - rotary_dim
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
            *((qkv, qkv, 0.0) if norms is None else (norms.q, norms.k, norms.eps)),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            half=rotary_dim // 2,
            block_half=power_of_two(rotary_dim // 2),
            block_rest=power_of_two(rest) if rest else 0,
            is_normed=norms is not None,
            **configuration.launch,
            **overlapping(qkv),
        )
    return q, k, v
