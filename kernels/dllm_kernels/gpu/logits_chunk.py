"""The chunked LM head: the library's matrix product writes some columns of float32 logits into a bounded
buffer, and one kernel a chunk keeps each row's choice state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.choice_state import (
    LEAST,
    absorb,
    combine,
    empty_state,
    is_banned,
    new_parts,
    row_noise,
    store_state,
)
from dllm_kernels.gpu.configurations import Configuration
from dllm_kernels.gpu.jit import cdiv, kernel
from dllm_kernels.lm_head import Choice, Sampling

BUFFER_BYTES = 32 * 1024**2  # stays in the L2 cache of a Hopper GPU


@kernel(
    "banned",
    "keys",
    "temperature",
    "values",
    "indices",
    "rows",
    "columns",
    "first_column",
    "first_part",
    "banned_count",
)
def _reduce(
    logits: tl.tensor,
    banned: tl.tensor,
    keys: tl.tensor,
    temperature: tl.tensor,
    values: tl.tensor,
    indices: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    first_column: tl.tensor,
    first_part: tl.tensor,
    banned_count: tl.tensor,
    is_sampled: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
) -> None:
    """One program: the state of ``block_rows`` rows over ``block_columns`` columns of the chunk."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    place = tl.program_id(1) * block_columns + tl.arange(0, block_columns)
    column = first_column + place
    is_in = (place < columns) & ~is_banned(column, banned, banned_count)
    mask = (row < rows)[:, None] & is_in[None, :]
    offset = row[:, None].to(tl.int64) * columns + place[None, :]
    tile = tl.load(logits + offset, mask=mask, other=LEAST)
    key = tl.zeros((block_rows,), tl.uint32)
    coolness = tl.zeros((block_rows,), tl.float32)
    if is_sampled:
        key, coolness = row_noise(keys, temperature, row, row < rows)
    state = empty_state(block_rows)
    state = absorb(tile, column, state, key, coolness, is_sampled)
    store_state(values, indices, first_part + tl.program_id(1), row, rows, row < rows, state, is_sampled)


def chunk_columns(rows: int, vocabulary: int, block_columns: int, buffer_bytes: int = BUFFER_BYTES) -> int:
    """Columns of a chunk: whole blocks that fit the buffer, at least one block, no more than there are."""
    blocks = max(1, buffer_bytes // (4 * max(rows, 1)) // block_columns)
    return min(blocks, cdiv(vocabulary, block_columns)) * block_columns


def chunk_and_choose(
    hidden: Tensor,
    weight: Tensor,
    banned: Tensor,
    sampling: Sampling | None,
    configuration: Configuration,
    buffer_bytes: int = BUFFER_BYTES,
) -> Choice:
    """``lm_head_choose`` with two launches a chunk. The buffer holds ``buffer_bytes``, or one block of
    columns where the rows are so many."""
    rows, vocabulary = hidden.shape[0], weight.shape[0]
    block_rows, block = configuration.blocks["block_rows"], configuration.blocks["block_columns"]
    width = chunk_columns(rows, vocabulary, block, buffer_bytes)
    values, indices = new_parts(cdiv(vocabulary, block), rows, hidden.device)
    buffer = torch.empty(rows * min(width, vocabulary), dtype=torch.float32, device=hidden.device)
    for first in range(0, vocabulary, width):
        columns = min(width, vocabulary - first)
        logits = buffer[: rows * columns].view(rows, columns)
        _multiply(hidden, weight[first : first + columns], logits)
        _reduce[(cdiv(rows, block_rows), cdiv(columns, block))](
            logits,
            banned,
            banned if sampling is None else sampling.keys,
            values if sampling is None else sampling.temperature,
            values,
            indices,
            rows,
            columns,
            first,
            first // block,
            banned.numel(),
            is_sampled=sampling is not None,
            **configuration.launch,
        )
    return combine(values, indices, sampling, vocabulary)


def _multiply(hidden: Tensor, weight: Tensor, out: Tensor) -> None:
    """float32 ``out = hidden @ weight.T``, accumulated in float32 whatever the operands."""
    if hidden.dtype == torch.float32:
        torch.mm(hidden, weight.t(), out=out)
    elif hidden.is_cuda:
        torch.mm(hidden, weight.t(), out_dtype=torch.float32, out=out)
    else:
        out.copy_(F.linear(hidden.float(), weight.float()))
