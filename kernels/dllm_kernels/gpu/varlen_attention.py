"""Bidirectional attention inside each of many requests of different lengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import block_dim, cdiv, dot_precision, kernel, require_last_contiguous
from dllm_kernels.gpu.softmax_state import absorb_keys
from dllm_kernels.layout import RowSpans

KERNEL = "varlen_attention"


class Variant(StrEnum):
    TRITON = "triton"
    LIBRARY = "library"


@kernel("offsets", "lengths")
def _attend(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    out: tl.tensor,
    offsets: tl.tensor,
    lengths: tl.tensor,
    scale: tl.tensor,
    q_row: tl.tensor,
    q_head: tl.tensor,
    k_row: tl.tensor,
    k_head: tl.tensor,
    v_row: tl.tensor,
    v_head: tl.tensor,
    out_row: tl.tensor,
    out_head: tl.tensor,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    block_dim: tl.constexpr,
    precision: tl.constexpr,
    block_queries: tl.constexpr,
    block_keys: tl.constexpr,
) -> None:
    """One program: ``block_queries`` queries of one head of one request. ``scale`` holds log2(e)."""
    request = tl.program_id(2)
    first = tl.program_id(0) * block_queries
    length = tl.load(lengths + request)
    if first >= length:
        return
    head = tl.program_id(1)
    start = tl.load(offsets + request).to(tl.int64)
    query = first + tl.arange(0, block_queries)
    key = tl.arange(0, block_keys)
    dim = tl.arange(0, block_dim)
    is_dim = dim < head_dim
    q_place = q + start * q_row + head * q_head + query[:, None].to(tl.int64) * q_row + dim[None, :]
    k_place = k + start * k_row + (head // group) * k_head + key[:, None].to(tl.int64) * k_row + dim[None, :]
    v_place = v + start * v_row + (head // group) * v_head + key[:, None].to(tl.int64) * v_row + dim[None, :]
    queries = tl.load(q_place, mask=(query < length)[:, None] & is_dim[None, :], other=0.0)
    top = tl.full((block_queries,), float("-inf"), tl.float32)
    total = tl.zeros((block_queries,), tl.float32)
    mean = tl.zeros((block_queries, block_dim), tl.float32)
    whole = length // block_keys * block_keys
    for _ in range(0, whole, block_keys):
        keys = tl.load(k_place, mask=is_dim[None, :], other=0.0)
        values = tl.load(v_place, mask=is_dim[None, :], other=0.0)
        scores = tl.dot(queries, keys.T, input_precision=precision) * scale
        top, total, mean = absorb_keys(scores, values, top, total, mean, precision)
        k_place += block_keys * k_row
        v_place += block_keys * v_row
    if whole < length:
        is_key = whole + key < length
        mask = is_key[:, None] & is_dim[None, :]
        keys = tl.load(k_place, mask=mask, other=0.0)
        values = tl.load(v_place, mask=mask, other=0.0)
        scores = tl.dot(queries, keys.T, input_precision=precision) * scale
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        top, total, mean = absorb_keys(scores, values, top, total, mean, precision)
    place = out + start * out_row + head * out_head + query[:, None].to(tl.int64) * out_row + dim[None, :]
    result = (mean / total[:, None]).to(out.dtype.element_ty)
    tl.store(place, result, mask=(query < length)[:, None] & is_dim[None, :])


def key_of(q: Tensor, k: Tensor, longest: int) -> Key:
    dtype = str(q.dtype).removeprefix("torch.")
    return bucket(longest), q.shape[1], k.shape[1], q.shape[2], dtype


def varlen_attention(
    table: ConfigurationTable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    groups: Sequence[RowSpans],
    out: Tensor,
    *,
    variant: Variant | None = None,
) -> None:
    """Twin of ``dllm_kernels.attention.varlen_attention``; needs no padded index. A group takes one launch,
    whatever its lengths."""
    for group in groups:
        key = key_of(q, k, group.longest)
        chosen = variant or Variant(table.variant(KERNEL, key) or Variant.TRITON)
        if chosen is Variant.LIBRARY and group.is_contiguous and group.total == q.shape[0]:
            attend_by_library(q, k, v, group, out)
        else:
            attend(q, k, v, group, out, table.get(KERNEL, key))


def attend(
    q: Tensor, k: Tensor, v: Tensor, spans: RowSpans, out: Tensor, configuration: Configuration
) -> None:
    """The Triton kernel for one group."""
    require_last_contiguous(q=q, k=k, v=v, out=out)
    heads, dim = q.shape[1:]
    block_queries = configuration.blocks["block_queries"]
    _attend[(cdiv(spans.longest, block_queries), heads, spans.lengths.shape[0])](
        q,
        k,
        v,
        out,
        spans.offsets,
        spans.lengths,
        math.log2(math.e) / math.sqrt(dim),
        *q.stride()[:2],
        *k.stride()[:2],
        *v.stride()[:2],
        *out.stride()[:2],
        group=heads // k.shape[1],
        head_dim=dim,
        block_dim=block_dim(dim),
        precision=dot_precision(q),
        **configuration.launch,
    )


def attend_by_library(q: Tensor, k: Tensor, v: Tensor, spans: RowSpans, out: Tensor) -> None:
    """PyTorch's flash attention for one contiguous group of all rows; CUDA, 16-bit dtypes, head_dim a
    multiple of 8."""
    result = torch.ops.aten._flash_attention_forward(
        q, k, v, spans.offsets, spans.offsets, spans.longest, spans.longest, 0.0, False, False
    )[0]
    out.copy_(result)
