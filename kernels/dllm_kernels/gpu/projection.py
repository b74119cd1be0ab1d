"""The fused LM head: a matrix product whose epilogue keeps a row's choice state, so that logits are never
written."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from dllm_kernels.gpu.choice_state import (
    LEAST,
    absorb,
    combine,
    empty_state,
    holds_out,
    is_banned,
    new_parts,
    row_noise,
    store_state,
)
from dllm_kernels.gpu.configurations import Configuration, multiprocessors
from dllm_kernels.gpu.jit import cdiv, dot_precision, kernel
from dllm_kernels.lm_head import Choice, Sampling


@kernel("banned", "keys", "temperature", "values", "indices", "rows", "splits", "banned_count")
def _project(
    hidden: tl.tensor,
    weight: tl.tensor,
    banned: tl.tensor,
    keys: tl.tensor,
    temperature: tl.tensor,
    values: tl.tensor,
    indices: tl.tensor,
    rows: tl.tensor,
    vocabulary: tl.tensor,
    banned_count: tl.tensor,
    splits: tl.tensor,
    depth: tl.constexpr,
    is_sampled: tl.constexpr,
    precision: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    is_flattened: tl.constexpr,
) -> None:
    """One program: ``block_rows`` rows over one share of the vocabulary. Programs side by side read the same
    columns of ``weight``."""
    row_tiles = tl.cdiv(rows, block_rows)
    first_row = (tl.program_id(0) % row_tiles) * block_rows
    split = tl.program_id(0) // row_tiles
    row = first_row + tl.arange(0, block_rows)
    tiles = tl.cdiv(vocabulary, block_columns)
    first_tile = split * tiles // splits
    last_tile = (split + 1) * tiles // splits
    key = tl.zeros((block_rows,), tl.uint32)
    coolness = tl.zeros((block_rows,), tl.float32)
    if is_sampled:
        key, coolness = row_noise(keys, temperature, row, row < rows)
    state = empty_state(block_rows)
    for tile in tl.range(first_tile, last_tile, flatten=is_flattened):
        first_column = tile * block_columns
        logits = tl.zeros((block_rows, block_columns), tl.float32)
        for start in range(0, depth, block_depth):
            left = hidden.load([first_row, start])
            right = weight.load([first_column, start])
            logits = tl.dot(left, right.T, logits, input_precision=precision)
        column = first_column + tl.arange(0, block_columns)
        if holds_out(first_column, first_column + block_columns, vocabulary, banned, banned_count):
            is_out = is_banned(column, banned, banned_count) | (column >= vocabulary)
            logits = tl.where(is_out[None, :], LEAST, logits)
        state = absorb(logits, column, state, key, coolness, is_sampled)
    store_state(values, indices, split, row, rows, row < rows, state, is_sampled)


def can_project(hidden: Tensor, weight: Tensor) -> bool:
    """Whether the copy engine can address both: contiguous rows of whole 16 bytes at 16-byte addresses."""
    row_bytes = hidden.shape[1] * hidden.element_size()
    addresses = hidden.data_ptr() | weight.data_ptr()
    is_dense = hidden.is_contiguous() and weight.is_contiguous()
    return is_dense and row_bytes % 16 == 0 and addresses % 16 == 0


def project_and_choose(
    hidden: Tensor,
    weight: Tensor,
    banned: Tensor,
    sampling: Sampling | None,
    configuration: Configuration,
) -> Choice:
    """``lm_head_choose`` in two launches for any number of rows; see ``can_project``."""
    rows, depth = hidden.shape
    vocabulary = weight.shape[0]
    blocks = configuration.blocks
    row_tiles = cdiv(rows, blocks["block_rows"])
    tiles = cdiv(vocabulary, blocks["block_columns"])
    programs = configuration.residents * multiprocessors(hidden)
    splits = min(tiles, configuration.splits or max(1, programs // row_tiles))
    values, indices = new_parts(splits, rows, hidden.device)
    is_sampled = sampling is not None
    _project[(row_tiles * splits,)](
        _tiles(hidden, blocks["block_rows"], blocks["block_depth"]),
        _tiles(weight, blocks["block_columns"], blocks["block_depth"]),
        banned,
        banned if sampling is None else sampling.keys,
        values if sampling is None else sampling.temperature,
        values,
        indices,
        rows,
        vocabulary,
        banned.numel(),
        splits,
        depth=depth,
        is_sampled=is_sampled,
        precision=dot_precision(hidden),
        **configuration.launch,
    )
    return combine(values, indices, sampling, vocabulary)


def _tiles(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])
