"""Attention of blocks of queries over keys in pages, one launch a group; two where the keys are split."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.attention import PagedKeys
from dllm_kernels.gpu.configurations import (
    Configuration,
    ConfigurationTable,
    Key,
    bucket,
    multiprocessors,
)
from dllm_kernels.gpu.jit import (
    await_inputs,
    block_dim,
    cdiv,
    dot_precision,
    jit,
    kernel,
    overlapping,
    power_of_two,
    require_last_contiguous,
)
from dllm_kernels.gpu.softmax_state import absorb_keys
from dllm_kernels.layout import RowSpans

KERNEL, WIDE = "paged_attention", "paged_attention_wide"
WIDE_QUERIES = 128
"""Rows times heads of a group above which spans count as wide: arithmetic bounds them, not the keys' read."""
PROGRAMS_A_MULTIPROCESSOR = 2
MOST_SPLITS = 16
MOST_KEYS_OF_A_PART = tl.constexpr(2048)
MOST_TOLD_ROWS, MOST_TOLD_KEYS = 512, 4096  # more of them in a wide span do as these do
LOWEST = tl.constexpr(-1e30)  # below any score


@kernel("slots", "counts", "offsets", "lengths", "slots_row", "rows", "splits", "least_parts")
def _attend(
    q: tl.tensor,
    k_pool: tl.tensor,
    v_pool: tl.tensor,
    slots: tl.tensor,
    counts: tl.tensor,
    offsets: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    tops: tl.tensor,
    scale: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    k_slot: tl.tensor,
    k_head: tl.tensor,
    v_slot: tl.tensor,
    v_head: tl.tensor,
    out_row: tl.tensor,
    out_head: tl.tensor,
    slots_row: tl.tensor,
    rows: tl.tensor,
    splits: tl.tensor,
    least_parts: tl.tensor,
    heads: tl.constexpr,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    block_dim: tl.constexpr,
    precision: tl.constexpr,
    is_split: tl.constexpr,
    causal_block: tl.constexpr,
    is_wide: tl.constexpr,
    block_queries: tl.constexpr,
    block_keys: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    """One program: the queries of one KV head's group over one share of one request's keys.

    Where ``is_split``, keys of a request fall into ``least_parts`` parts or more, so that none has many keys.
    With more than one part, ``parts`` float32 [splits, rows, heads, block_dim] takes the result of each and
    ``tops`` float32 [splits, rows, heads] log2 of its weight; their rows count from the group's first.
    ``causal_block`` 0: every row sees all keys. ``is_wide``: tiles of keys that all queries see are told
    apart, and need no mask.
    """
    await_inputs(overlaps)
    kv_head = tl.program_id(0)
    request = tl.program_id(1)
    split = tl.program_id(2) % splits
    folded = tl.program_id(2) // splits * block_queries + tl.arange(0, block_queries)
    length = tl.load(lengths + request)
    count = tl.load(counts + request)
    part_count = _part_count(count, splits, least_parts) if is_split else 1
    if (tl.program_id(2) // splits * block_queries >= length * group) | (split >= part_count):
        return
    row = tl.load(offsets + request).to(tl.int64) + folded // group
    head = kv_head * group + folded % group
    is_query = folded < length * group
    dim = tl.arange(0, block_dim)
    is_dim = dim < head_dim
    mask = is_query[:, None] & is_dim[None, :]
    queries = tl.load(q + row[:, None] * q_row + head[:, None] * q_head + dim[None, :], mask=mask, other=0.0)
    share = tl.cdiv(tl.cdiv(count, part_count), block_keys) * block_keys
    first = split * share
    last = tl.minimum(first + share, count)
    visible = count - length + (folded // group // causal_block + 1) * causal_block if causal_block else count
    if causal_block:
        last = tl.minimum(last, tl.max(visible, 0))
    slots += request.to(tl.int64) * slots_row
    k_place = k_pool + kv_head * k_head + dim[None, :]
    v_place = v_pool + kv_head * v_head + dim[None, :]
    top = tl.full((block_queries,), LOWEST, tl.float32)  # finite: a row may see no key of a tile
    total = tl.zeros((block_queries,), tl.float32)
    mean = tl.zeros((block_queries, block_dim), tl.float32)
    masked_from = first
    if is_wide:
        seen_by_all = tl.minimum(last, tl.min(visible, 0) if causal_block else count)
        masked_from += tl.maximum(seen_by_all - first, 0) // block_keys * block_keys
        for start in range(first, masked_from, block_keys):
            top, total, mean = _absorb_tile(
                start,
                last,
                visible,
                queries,
                slots,
                k_place,
                v_place,
                k_slot,
                v_slot,
                top,
                total,
                mean,
                scale,
                head_dim,
                precision,
                block_keys,
                is_masked=False,
                is_causal=False,
            )
    for start in range(masked_from, last, block_keys):
        top, total, mean = _absorb_tile(
            start,
            last,
            visible,
            queries,
            slots,
            k_place,
            v_place,
            k_slot,
            v_slot,
            top,
            total,
            mean,
            scale,
            head_dim,
            precision,
            block_keys,
            is_masked=True,
            is_causal=causal_block > 0,
        )
    if is_split and part_count > 1:
        mean = tl.where(total[:, None] > 0, mean / total[:, None], 0.0)
        part = (split.to(tl.int64) * rows + row - tl.load(offsets)) * heads + head
        tl.store(parts + part[:, None] * block_dim + dim[None, :], mean, mask=is_query[:, None])
        tl.store(tops + part, tl.where(total > 0, top + tl.log2(total), float("-inf")), mask=is_query)
    else:
        place = out + row[:, None] * out_row + head[:, None] * out_head + dim[None, :]
        tl.store(place, (mean / total[:, None]).to(out.dtype.element_ty), mask=mask)


@jit
def _part_count(count: tl.tensor, splits: tl.tensor, least_parts: tl.tensor) -> tl.tensor:
    """Parts that a request's keys fall into."""
    return tl.minimum(tl.maximum(tl.cdiv(count, MOST_KEYS_OF_A_PART), least_parts), splits)


@jit
def _absorb_tile(
    start: tl.tensor,
    last: tl.tensor,
    visible: tl.tensor,
    queries: tl.tensor,
    slots: tl.tensor,
    k_place: tl.tensor,
    v_place: tl.tensor,
    k_slot: tl.tensor,
    v_slot: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    mean: tl.tensor,
    scale: tl.tensor,
    head_dim: tl.constexpr,
    precision: tl.constexpr,
    block_keys: tl.constexpr,
    is_masked: tl.constexpr,
    is_causal: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The running state after the keys from ``start`` on; without ``is_masked`` all of them are seen by all
    queries."""
    key = start + tl.arange(0, block_keys)
    is_key = key < last
    is_dim = (tl.arange(0, queries.shape[1]) < head_dim)[None, :]
    if is_masked:
        slot = tl.load(slots + key, mask=is_key, other=0).to(tl.int64)[:, None]
        mask = is_key[:, None] & is_dim
        keys = tl.load(k_place + slot * k_slot, mask=mask, other=0.0)
        values = tl.load(v_place + slot * v_slot, mask=mask, other=0.0)
    else:
        slot = tl.load(slots + key).to(tl.int64)[:, None]
        if queries.shape[1] == head_dim:
            keys = tl.load(k_place + slot * k_slot)
            values = tl.load(v_place + slot * v_slot)
        else:
            keys = tl.load(k_place + slot * k_slot, mask=is_dim, other=0.0)
            values = tl.load(v_place + slot * v_slot, mask=is_dim, other=0.0)
    scores = tl.dot(queries, keys.T, input_precision=precision) * scale
    if is_masked:
        is_seen = is_key[None, :]
        if is_causal:
            is_seen &= key[None, :] < visible[:, None]
        scores = tl.where(is_seen, scores, float("-inf"))
    top, total, mean = absorb_keys(scores, values, top, total, mean, precision)
    return top, total, mean


@kernel("counts", "offsets", "lengths", "rows", "splits", "least_parts")
def _combine(
    parts: tl.tensor,
    tops: tl.tensor,
    counts: tl.tensor,
    offsets: tl.tensor,
    lengths: tl.tensor,
    out: tl.tensor,
    out_row: tl.tensor,
    out_head: tl.tensor,
    rows: tl.tensor,
    splits: tl.tensor,
    least_parts: tl.tensor,
    heads: tl.constexpr,
    head_dim: tl.constexpr,
    block_dim: tl.constexpr,
    block_splits: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    """One program: one head of one query over all parts, where there are several."""
    await_inputs(overlaps)
    query = tl.program_id(0)
    request = tl.program_id(1)
    part_count = _part_count(tl.load(counts + request), splits, least_parts)
    if (query >= tl.load(lengths + request)) | (part_count == 1):
        return
    head = tl.program_id(2)
    row = tl.load(offsets + request).to(tl.int64) + query
    split = tl.arange(0, block_splits)
    dim = tl.arange(0, block_dim)
    is_part = split < part_count
    part = (split.to(tl.int64) * rows + row - tl.load(offsets)) * heads + head
    top = tl.load(tops + part, mask=is_part, other=float("-inf"))
    mean = tl.load(parts + part[:, None] * block_dim + dim[None, :], mask=is_part[:, None], other=0.0)
    weight = tl.exp2(top - tl.max(top, 0))
    result = tl.sum(weight[:, None] * mean, 0) / tl.sum(weight, 0)
    place = out + row * out_row + head * out_head + dim
    tl.store(place, result.to(out.dtype.element_ty), mask=dim < head_dim)


def split_count(programs: int, most_keys: int, block_keys: int, processors: int) -> int:
    """Parts the keys fall into so that ``programs`` times parts fill the device; a part has a tile at
    least."""
    wanted = processors * PROGRAMS_A_MULTIPROCESSOR // max(programs, 1)
    return max(1, min(wanted, cdiv(most_keys, block_keys), MOST_SPLITS))


def kernel_of(q: Tensor, k_pool: Tensor, spans: RowSpans) -> str:
    """What the configurations of these spans are kept under."""
    return WIDE if spans.longest * (q.shape[1] // k_pool.shape[1]) > WIDE_QUERIES else KERNEL


def key_of(q: Tensor, k_pool: Tensor, spans: RowSpans, keys: PagedKeys) -> Key:
    requests, most = keys.slots.shape
    dtype = str(q.dtype).removeprefix("torch.")
    if kernel_of(q, k_pool, spans) == WIDE:  # whose programs fill the device in any case
        sizes = 0, bucket(min(spans.longest, MOST_TOLD_ROWS)), bucket(min(most, MOST_TOLD_KEYS))
    else:
        sizes = bucket(requests), bucket(spans.longest), bucket(most)
    return *sizes, q.shape[1], k_pool.shape[1], q.shape[2], dtype


def paged_attention(
    table: ConfigurationTable,
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    groups: Sequence[tuple[RowSpans, PagedKeys]],
    out: Tensor,
) -> None:
    """Twin of ``dllm_kernels.attention.paged_attention``; needs no padded index of rows."""
    for spans, keys in groups:
        configuration = table.get(kernel_of(q, k_pool, spans), key_of(q, k_pool, spans, keys))
        attend(q, k_pool, v_pool, spans, keys, out, configuration)


def attend(
    q: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    spans: RowSpans,
    keys: PagedKeys,
    out: Tensor,
    configuration: Configuration,
) -> None:
    """One group."""
    require_last_contiguous(q=q, k_pool=k_pool, v_pool=v_pool, slots=keys.slots, out=out)
    heads, dim = q.shape[1:]
    rows = spans.total if spans.is_contiguous else q.shape[0]
    kv_heads, (requests, most) = k_pool.shape[1], keys.slots.shape
    group, width = heads // kv_heads, block_dim(dim)
    blocks = configuration.blocks
    tiles = cdiv(spans.longest * group, blocks["block_queries"])
    programs = requests * kv_heads * tiles
    least_parts = configuration.splits or split_count(
        programs, most, blocks["block_keys"], multiprocessors(q)
    )
    splits = min(max(least_parts, cdiv(most, MOST_KEYS_OF_A_PART.value)), MOST_SPLITS)
    is_split = splits > 1
    parts, tops = out, out
    if is_split:
        parts = torch.empty(splits, rows, heads, width, dtype=torch.float32, device=q.device)
        tops = parts.new_empty(splits, rows, heads)
    _attend[(kv_heads, requests, tiles * splits)](
        q,
        k_pool,
        v_pool,
        keys.slots,
        keys.counts,
        spans.offsets,
        spans.lengths,
        out,
        parts,
        tops,
        math.log2(math.e) / math.sqrt(dim),
        *q.stride()[:2],
        *k_pool.stride()[:2],
        *v_pool.stride()[:2],
        *out.stride()[:2],
        keys.slots.stride(0),
        rows,
        splits,
        least_parts,
        heads=heads,
        group=group,
        head_dim=dim,
        block_dim=width,
        precision=dot_precision(q),
        is_split=is_split,
        causal_block=keys.causal_block,
        is_wide=kernel_of(q, k_pool, spans) == WIDE,
        **configuration.launch,
        **overlapping(q),
    )
    if is_split:
        _combine[(spans.longest, requests, heads)](
            parts,
            tops,
            keys.counts,
            spans.offsets,
            spans.lengths,
            out,
            *out.stride()[:2],
            rows,
            splits,
            least_parts,
            heads=heads,
            head_dim=dim,
            block_dim=width,
            block_splits=power_of_two(splits),
            num_warps=1,
            **overlapping(q),
        )
