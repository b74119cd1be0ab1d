"""Head-centric selection in three launches a group: scores, kept positions, packing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import block_dim, cdiv, jit, kernel, power_of_two, require_last_contiguous
from dllm_kernels.kv_select import PackGroup

SCORE, SELECT, PACK = "kv_score", "kv_select", "kv_pack"


@kernel("offsets", "lengths", "is_context", "query_weight", "scores", "longest")
def _score(
    q: tl.tensor,
    k: tl.tensor,
    offsets: tl.tensor,
    lengths: tl.tensor,
    is_context: tl.tensor,
    query_weight: tl.tensor,
    scores: tl.tensor,
    longest: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    k_row: tl.tensor,
    k_head: tl.tensor,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    block_dim: tl.constexpr,
    block_length: tl.constexpr,
    block_keys: tl.constexpr,
    block_window: tl.constexpr,
) -> None:
    """One program: the scores of ``block_keys`` keys of one KV head of one request, before pooling; -inf
    outside the context. ``scores`` float32 [requests, kv_heads, longest]."""
    request = tl.program_id(2)
    length = tl.load(lengths + request)
    if tl.program_id(0) * block_keys >= length:
        return
    kv_head = tl.program_id(1)
    start = tl.load(offsets + request).to(tl.int64)
    dim = tl.arange(0, block_dim)
    is_dim = dim < head_dim
    key = tl.program_id(0) * block_keys + tl.arange(0, block_keys)
    mask = (key < length)[:, None] & is_dim[None, :]
    k_place = k + (start + key)[:, None] * k_row + kv_head * k_head + dim[None, :]
    keys = tl.load(k_place, mask=mask, other=0.0).to(tl.float32)
    weights = query_weight + request.to(tl.int64) * longest
    position = tl.arange(0, block_length)
    is_window = tl.load(weights + position, mask=position < length, other=0.0) > 0
    window = tl.sum(is_window.to(tl.int32), 0)
    first = tl.min(tl.where(is_window, position, block_length), 0)
    best = tl.full((block_keys,), float("-inf"), tl.float32)
    for member in range(group):
        head = kv_head * group + member
        mean = tl.zeros((block_dim,), tl.float32)
        for step in range(0, window, block_window):
            within = step + tl.arange(0, block_window)
            row = first + within
            share = tl.load(weights + row, mask=within < window, other=0.0)
            q_mask = (within < window)[:, None] & is_dim[None, :]
            q_place = q + (start + row)[:, None] * q_row + head * q_head + dim[None, :]
            queries = tl.load(q_place, mask=q_mask, other=0.0).to(tl.float32)
            mean += tl.sum(queries * share[:, None], 0)
        best = tl.maximum(best, tl.sum(keys * mean[None, :], 1))
    counts = tl.load(is_context + request.to(tl.int64) * longest + key, mask=key < length, other=0)
    place = scores + (request.to(tl.int64) * tl.num_programs(1) + kv_head) * longest + key
    tl.store(place, tl.where(counts != 0, best, float("-inf")), mask=key < length)


@jit
def _pooled(row: tl.tensor, position: tl.tensor, length: tl.tensor) -> tl.tensor:
    """The largest score of a position and its two neighbours."""
    nothing = float("-inf")
    here = tl.load(row + position, mask=position < length, other=nothing)
    before = tl.load(row + position - 1, mask=(position > 0) & (position <= length), other=nothing)
    after = tl.load(row + position + 1, mask=position + 1 < length, other=nothing)
    return tl.maximum(here, tl.maximum(before, after))


@jit
def _rank(score: tl.tensor) -> tl.tensor:
    """uint32 in the order of float32 scores, above 0; both zeros are one."""
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    word = bits.to(tl.uint32, bitcast=True)
    return tl.where(bits < 0, word ^ 0xFFFFFFFF, word | 0x80000000)


@kernel("lengths", "is_context", "scores", "slots", "positions", "longest", "kept")
def _select(
    lengths: tl.tensor,
    is_context: tl.tensor,
    scores: tl.tensor,
    slots: tl.tensor,
    positions: tl.tensor,
    longest: tl.tensor,
    kept: tl.tensor,
    kv_heads: tl.constexpr,
    keeps_all: tl.constexpr,
    shares_indices: tl.constexpr,
    block_length: tl.constexpr,
) -> None:
    """One program: the kept positions of one KV head of one request in ascending order, then -1, to
    ``positions`` int32 [requests, kv_heads, kept].

    The threshold is built bit by bit from the top: it is the largest rank that enough scores reach.
    """
    kv_head = tl.program_id(0)
    request = tl.program_id(1).to(tl.int64)
    length = tl.load(lengths + request)
    position = tl.arange(0, block_length)
    inside = tl.load(is_context + request * longest + position, mask=position < length, other=0) != 0
    slot = tl.arange(0, block_length)
    wanted = tl.sum((tl.load(slots + request * kept + slot, mask=slot < kept, other=0) != 0).to(tl.int32), 0)
    wanted = tl.minimum(wanted, tl.sum(inside.to(tl.int32), 0))
    is_kept = inside
    if not keeps_all:
        row = scores + request * kv_heads * longest
        if shares_indices:
            pooled = tl.zeros((block_length,), tl.float32)
            for other in range(kv_heads):
                pooled += _pooled(row + other * longest, position, length)
        else:
            pooled = _pooled(row + kv_head * longest, position, length)
        rank = tl.where(inside, _rank(pooled), 0)
        threshold = tl.zeros((), tl.uint32)
        bit = tl.full((), 0x80000000, tl.uint32)
        for _ in range(32):
            trial = threshold | bit
            reached = tl.sum((rank >= trial).to(tl.int32), 0)
            threshold = tl.where(reached >= wanted, trial, threshold)
            bit = bit >> 1
        above = rank > threshold
        ties = (rank == threshold) & inside
        room = wanted - tl.sum(above.to(tl.int32), 0)
        is_kept = above | (ties & (tl.cumsum(ties.to(tl.int32), 0) <= room))
    place = tl.cumsum(is_kept.to(tl.int32), 0) - 1
    target = positions + (request * kv_heads + kv_head) * kept
    tl.store(target + place, position, mask=is_kept & (place < wanted))
    tl.store(target + slot, tl.full((block_length,), -1, tl.int32), mask=(slot >= wanted) & (slot < kept))


@kernel("offsets", "slots", "positions", "kept")
def _pack(
    k: tl.tensor,
    v: tl.tensor,
    offsets: tl.tensor,
    slots: tl.tensor,
    positions: tl.tensor,
    k_pool: tl.tensor,
    v_pool: tl.tensor,
    kept: tl.tensor,
    k_row: tl.tensor,
    k_head: tl.tensor,
    v_row: tl.tensor,
    v_head: tl.tensor,
    k_slot: tl.tensor,
    k_slot_head: tl.tensor,
    v_slot: tl.tensor,
    v_slot_head: tl.tensor,
    kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    block_dim: tl.constexpr,
    block_keys: tl.constexpr,
) -> None:
    """One program: K/V of ``block_keys`` kept positions of one KV head of one request to their slots."""
    kv_head = tl.program_id(0)
    request = tl.program_id(2).to(tl.int64)
    place = tl.program_id(1) * block_keys + tl.arange(0, block_keys)
    source = positions + (request * kv_heads + kv_head) * kept + place
    position = tl.load(source, mask=place < kept, other=-1)
    slot = tl.load(slots + request * kept + place, mask=place < kept, other=0)
    row = tl.load(offsets + request).to(tl.int64) + position
    dim = tl.arange(0, block_dim)
    mask = (position >= 0)[:, None] & (dim < head_dim)[None, :]
    keys = tl.load(k + row[:, None] * k_row + kv_head * k_head + dim[None, :], mask=mask, other=0.0)
    values = tl.load(v + row[:, None] * v_row + kv_head * v_head + dim[None, :], mask=mask, other=0.0)
    tl.store(k_pool + slot[:, None] * k_slot + kv_head * k_slot_head + dim[None, :], keys, mask=mask)
    tl.store(v_pool + slot[:, None] * v_slot + kv_head * v_slot_head + dim[None, :], values, mask=mask)


def key_of(q: Tensor, k: Tensor, group: PackGroup) -> Key:
    dtype = str(q.dtype).removeprefix("torch.")
    return bucket(group.rows.longest), q.shape[1], k.shape[1], q.shape[2], dtype


def select_and_pack(
    table: ConfigurationTable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: Sequence[PackGroup],
    k_pool: Tensor,
    v_pool: Tensor,
    *,
    shares_indices: bool = False,
) -> None:
    """Twin of ``dllm_kernels.kv_select.select_and_pack``: three launches a group, whatever its lengths, and
    two where everything is kept. Kept tokens lie in the order of their positions."""
    require_last_contiguous(q=q, k=k, v=v, k_pool=k_pool, v_pool=v_pool)
    for group in groups:
        key = key_of(q, k, group)
        scores = k.new_empty(0, dtype=torch.float32)
        if not group.keeps_all:
            scores = score(q, k, group, table.get(SCORE, key))
        positions = select(scores, k.shape[1], group, table.get(SELECT, key), shares_indices=shares_indices)
        pack(k, v, positions, group, k_pool, v_pool, table.get(PACK, key))


def score(q: Tensor, k: Tensor, group: PackGroup, configuration: Configuration) -> Tensor:
    """Scores before pooling, float32 ``[requests, kv_heads, longest]``."""
    requests, longest = group.is_context.shape
    heads, kv_heads, dim = q.shape[1], k.shape[1], q.shape[2]
    scores = torch.empty(requests, kv_heads, longest, dtype=torch.float32, device=q.device)
    _score[(cdiv(longest, configuration.blocks["block_keys"]), kv_heads, requests)](
        q,
        k,
        group.rows.offsets,
        group.rows.lengths,
        group.is_context,
        group.query_weight,
        scores,
        longest,
        *q.stride()[:2],
        *k.stride()[:2],
        group=heads // kv_heads,
        head_dim=dim,
        block_dim=block_dim(dim),
        block_length=max(16, power_of_two(longest)),
        **configuration.launch,
    )
    return scores


def select(
    scores: Tensor, kv_heads: int, group: PackGroup, configuration: Configuration, *, shares_indices: bool
) -> Tensor:
    """Kept positions, int32 ``[requests, kv_heads, kept]``, ascending, then -1."""
    requests, longest = group.is_context.shape
    kept = group.slots.shape[1]
    positions = torch.empty(requests, kv_heads, kept, dtype=torch.int32, device=group.slots.device)
    _select[(kv_heads, requests)](
        group.rows.lengths,
        group.is_context,
        scores,
        group.slots,
        positions,
        longest,
        kept,
        kv_heads=kv_heads,
        keeps_all=group.keeps_all,
        shares_indices=shares_indices,
        block_length=max(16, power_of_two(longest)),
        **configuration.launch,
    )
    return positions


def pack(
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    group: PackGroup,
    k_pool: Tensor,
    v_pool: Tensor,
    configuration: Configuration,
) -> None:
    """Copy the K/V of the kept positions to their slots."""
    requests, kv_heads, kept = positions.shape
    dim = k.shape[2]
    _pack[(kv_heads, cdiv(kept, configuration.blocks["block_keys"]), requests)](
        k,
        v,
        group.rows.offsets,
        group.slots,
        positions,
        k_pool,
        v_pool,
        kept,
        *k.stride()[:2],
        *v.stride()[:2],
        *k_pool.stride()[:2],
        *v_pool.stride()[:2],
        kv_heads=kv_heads,
        head_dim=dim,
        block_dim=block_dim(dim),
        **configuration.launch,
    )
