"""The routed feed-forward layer: rows in the order of their experts, two grouped products, the sum of each
token's experts.

Every element is a sum over the depth in one order, whatever the tiles, so that a token's result does not
depend on the other tokens of a step."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, bucket
from dllm_kernels.gpu.expert_order import ExpertOrder, order_by_expert, pick_tile
from dllm_kernels.gpu.jit import await_inputs, cdiv, dot_precision, jit, kernel, overlapping

OPERATION = "experts_mlp"
GATE, DOWN, SUM = "experts_gate", "experts_down", "experts_sum"
BLOCKS_OF_ROWS = (16, 32, 64, 128)
"""Rows of a tile: an operation's variants, by the rows that an expert gets."""


@jit
def _add_product(
    sums: tl.tensor, left: tl.tensor, right: tl.tensor, swaps: tl.constexpr, precision: tl.constexpr
) -> tl.tensor:
    """``sums`` and ``left`` [rows, depth] times ``right`` [columns, depth]; the other way round with
    ``swaps``, for the long side of the matrix unit."""
    if swaps:
        sums = tl.dot(right, left.T, sums, input_precision=precision)
    else:
        sums = tl.dot(left, right.T, sums, input_precision=precision)
    return sums


@jit
def _gate_tile(
    x: tl.tensor,
    gate_up: tl.tensor,
    tokens: tl.tensor,
    hidden: tl.tensor,
    x_row: tl.tensor,
    expert: tl.tensor,
    rows: tl.tensor,
    first_column: tl.tensor,
    depth: tl.constexpr,
    width: tl.constexpr,
    precision: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    swaps: tl.constexpr,
) -> None:
    """``rows`` rows of one expert; their ``tokens`` and ``hidden`` begin with the first."""
    row = tl.arange(0, block_rows)
    first_weight = expert * 2 * width + first_column
    token = tl.load(tokens + row, mask=row < rows, other=0)
    inside = tl.arange(0, block_depth)
    place = x + token.to(tl.int64)[:, None] * x_row + inside[None, :]
    shape: tl.constexpr = (block_columns, block_rows) if swaps else (block_rows, block_columns)
    sums = tl.zeros(shape, tl.float32)
    up_sums = tl.zeros(shape, tl.float32)
    for start in range(0, depth, block_depth):
        holds = (row < rows)[:, None] & ((depth % block_depth == 0) | (start + inside < depth))[None, :]
        left = tl.load(place + start, mask=holds, other=0.0)
        sums = _add_product(sums, left, gate_up.load([first_weight, start]), swaps, precision)
        right = gate_up.load([first_weight + width, start])
        up_sums = _add_product(up_sums, left, right, swaps, precision)
    sums = sums / (1.0 + tl.exp(-sums)) * up_sums
    if swaps:
        sums = tl.trans(sums)
    column = first_column + tl.arange(0, block_columns)
    place = hidden + row[:, None] * width + column[None, :]
    mask = (row < rows)[:, None] & (column < width)[None, :]
    tl.store(place, sums.to(hidden.dtype.element_ty), mask=mask)


@kernel()
def _gate(
    x: tl.tensor,
    gate_up: tl.tensor,
    tokens: tl.tensor,
    tiles: tl.tensor,
    filled_tiles: tl.tensor,
    hidden: tl.tensor,
    x_row: tl.tensor,
    depth: tl.constexpr,
    width: tl.constexpr,
    precision: tl.constexpr,
    overlaps: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    swaps: tl.constexpr,
) -> None:
    """One program: a tile of one expert's rows, ``block_columns`` columns of its gate and as many of its
    second factor. Programs side by side share a tile. One that is at most half full is multiplied as such."""
    await_inputs(overlaps)
    column_blocks: tl.constexpr = (width + block_columns - 1) // block_columns
    expert, first, rows = pick_tile(tl.program_id(0) // column_blocks, tiles, filled_tiles)
    tokens += first
    hidden += first.to(tl.int64) * width
    halves: tl.constexpr = block_rows > 16
    column = tl.program_id(0) % column_blocks * block_columns
    if rows > (block_rows // 2 if halves else 0):
        _gate_tile(
            x, gate_up, tokens, hidden, x_row, expert, rows, column,
            depth, width, precision, block_rows, block_columns, block_depth, swaps,
        )  # fmt: skip
    elif halves and rows > 0:
        _gate_tile(
            x, gate_up, tokens, hidden, x_row, expert, rows, column,
            depth, width, precision, block_rows // 2, block_columns, block_depth, swaps,
        )  # fmt: skip


@kernel()
def _down(
    hidden: tl.tensor,
    down: tl.tensor,
    tiles: tl.tensor,
    filled_tiles: tl.tensor,
    parts: tl.tensor,
    width: tl.constexpr,
    columns: tl.constexpr,
    precision: tl.constexpr,
    overlaps: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    swaps: tl.constexpr,
) -> None:
    """One program: a tile of one expert's rows, ``block_columns`` columns."""
    await_inputs(overlaps)
    column_blocks: tl.constexpr = (columns + block_columns - 1) // block_columns
    expert, first, rows = pick_tile(tl.program_id(0) // column_blocks, tiles, filled_tiles)
    if rows > 0:
        first_column = tl.program_id(0) % column_blocks * block_columns
        shape: tl.constexpr = (block_columns, block_rows) if swaps else (block_rows, block_columns)
        sums = tl.zeros(shape, tl.float32)
        for start in range(0, width, block_depth):
            left = hidden.load([first, start])  # also rows of the next expert, which nobody stores
            right = down.load([expert * columns + first_column, start])
            sums = _add_product(sums, left, right, swaps, precision)
        if swaps:
            sums = tl.trans(sums)
        row, column = tl.arange(0, block_rows), first_column + tl.arange(0, block_columns)
        place = parts + (first + row).to(tl.int64)[:, None] * columns + column[None, :]
        mask = (row < rows)[:, None] & (column < columns)[None, :]
        tl.store(place, sums.to(parts.dtype.element_ty), mask=mask)


@kernel()
def _sum(
    parts: tl.tensor,
    rows: tl.tensor,
    weights: tl.tensor,
    residual: tl.tensor,
    residual_row: tl.tensor,
    taken: tl.constexpr,
    columns: tl.constexpr,
    overlaps: tl.constexpr,
    block_columns: tl.constexpr,
) -> None:
    """One program: ``block_columns`` columns of one token, the sum in the order of its experts."""
    await_inputs(overlaps)
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block_columns + tl.arange(0, block_columns)
    mask = column < columns
    sums = tl.zeros((block_columns,), tl.float32)
    for number in tl.static_range(taken):
        row = tl.load(rows + token * taken + number).to(tl.int64)
        part = tl.load(parts + row * columns + column, mask=mask, other=0.0).to(tl.float32)
        sums += part * tl.load(weights + token * taken + number)
    place = residual + token * residual_row + column
    sums += tl.load(place, mask=mask, other=0.0).to(tl.float32)
    tl.store(place, sums.to(residual.dtype.element_ty), mask=mask)


def key_of(x: Tensor, experts: Tensor, gate_up: Tensor) -> Key:
    count, double_width, d_model = gate_up.shape
    dtype = str(x.dtype).removeprefix("torch.")
    return bucket(x.shape[0]), experts.shape[1], count, double_width // 2, d_model, dtype


def blocks_to_try(experts: Tensor, count: int) -> list[int]:
    """Tiles of a fourth to four times the rows that each of ``count`` experts gets on average, the nearest
    first, which serves without a measurement."""
    average = experts.numel() / count
    smallest, largest = min(BLOCKS_OF_ROWS[-1], average / 4), max(BLOCKS_OF_ROWS[0], average * 4)
    found = [block for block in BLOCKS_OF_ROWS if smallest <= block <= largest]
    return sorted(found, key=lambda block: abs(block - average))


def add_experts_mlp(
    table: ConfigurationTable,
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    experts: Tensor,
    weights: Tensor,
    residual: Tensor,
) -> None:
    """Twin of ``dllm_kernels.experts.add_experts_mlp``. Nothing is read on the host. Expert weights are
    contiguous, their rows whole multiples of 16 bytes."""
    if not len(x):
        return
    key, count = key_of(x, experts, gate_up), gate_up.shape[0]
    block = int(table.variant(OPERATION, key) or blocks_to_try(experts, count)[0])
    order = order_by_expert(table, experts, count, block)
    hidden = gate_rows(x, gate_up, order, table.get(f"{GATE}_{block}", key))
    parts = down_rows(hidden, down, order, table.get(f"{DOWN}_{block}", key))
    sum_parts(parts, order, weights, residual, table.get(SUM, key))


def gate_rows(x: Tensor, gate_up: Tensor, order: ExpertOrder, configuration: Configuration) -> Tensor:
    """Each row through its expert's gated first layer, ``[rows, width]``."""
    count, width, d_model = gate_up.shape[0], gate_up.shape[1] // 2, gate_up.shape[2]
    blocks = configuration.blocks
    hidden = torch.empty(order.rows.numel(), width, dtype=x.dtype, device=x.device)
    _gate[(len(order.tiles) * cdiv(width, blocks["block_columns"]),)](
        x,
        _tiles(gate_up.view(count * 2 * width, d_model), blocks["block_columns"], blocks["block_depth"]),
        order.tokens,
        order.tiles,
        order.filled_tiles,
        hidden,
        x.stride(0),
        depth=d_model,
        width=width,
        precision=dot_precision(x),
        block_rows=order.block_rows,
        **configuration.launch,
        **overlapping(x),
    )
    return hidden


def down_rows(hidden: Tensor, down: Tensor, order: ExpertOrder, configuration: Configuration) -> Tensor:
    """Each row through its expert's last layer, ``[rows, d_model]``."""
    count, columns, width = down.shape
    blocks = configuration.blocks
    parts = torch.empty(len(hidden), columns, dtype=hidden.dtype, device=hidden.device)
    _down[(len(order.tiles) * cdiv(columns, blocks["block_columns"]),)](
        _tiles(hidden, order.block_rows, blocks["block_depth"]),
        _tiles(down.view(count * columns, width), blocks["block_columns"], blocks["block_depth"]),
        order.tiles,
        order.filled_tiles,
        parts,
        width=width,
        columns=columns,
        precision=dot_precision(hidden),
        block_rows=order.block_rows,
        **configuration.launch,
        **overlapping(hidden),
    )
    return parts


def sum_parts(
    parts: Tensor, order: ExpertOrder, weights: Tensor, residual: Tensor, configuration: Configuration
) -> None:
    """Add each token's rows of ``parts`` at their weights to ``residual``; rounded once."""
    (tokens, taken), columns = weights.shape, parts.shape[1]
    _sum[(tokens, cdiv(columns, configuration.blocks["block_columns"]))](
        parts,
        order.rows,
        weights,
        residual,
        residual.stride(0),
        taken=taken,
        columns=columns,
        **configuration.launch,
        **overlapping(parts),
    )


def _tiles(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor(matrix, list(matrix.shape), list(matrix.stride()), [rows, columns])
