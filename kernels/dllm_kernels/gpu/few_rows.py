"""Linear layers of few rows, whose time is the read of their weights: one stream of them a kernel, which
begins while the kernel before it still runs."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import Configuration, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, dot_precision, jit, kernel, overlapping, power_of_two

MOST_ROWS = 64
LINE_BYTES = tl.constexpr(128)
LINEAR, GATED_LINEAR, ADD_LINEAR = "linear", "gated_linear", "add_linear"


@jit
def _prefetch(places: tl.tensor) -> None:
    """Bring the lines at ``places`` into the L2 cache. Compiled only."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [places], dtype=tl.int32, is_pure=False, pack=1
    )


@jit
def _add_product(
    sums: tl.tensor,
    left: tl.tensor,
    place: tl.tensor,
    mask: tl.tensor,
    is_even: tl.constexpr,
    swaps: tl.constexpr,
    precision: tl.constexpr,
) -> tl.tensor:
    """``sums`` and the product with the weights at ``place`` [columns, depth]."""
    right = tl.load(place) if is_even else tl.load(place, mask=mask, other=0.0)
    if swaps:
        sums = tl.dot(right, left.T, sums, input_precision=precision)
    else:
        sums = tl.dot(left, right.T, sums, input_precision=precision)
    return sums


@kernel("rows")
def _stream(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows: tl.tensor,
    x_row: tl.tensor,
    out_row: tl.tensor,
    width: tl.constexpr,
    columns: tl.constexpr,
    gates: tl.constexpr,
    adds: tl.constexpr,
    has_bias: tl.constexpr,
    precision: tl.constexpr,
    is_even: tl.constexpr,
    overlaps: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_depth: tl.constexpr,
    swaps: tl.constexpr,
    ahead_bytes: tl.constexpr,
) -> None:
    """One program: all rows, ``block_columns`` columns.

    ``swaps``: weights are the product's left operand, whose side of a tile is the matrix unit's long one.
    ``ahead_bytes``: what of each weight row is asked for before the kernel before has ended; nobody writes
    weights. ``is_even``: tiles divide width and columns."""
    row = tl.arange(0, block_rows)
    column = tl.program_id(0) * block_columns + tl.arange(0, block_columns)
    depth = tl.arange(0, block_depth)
    holds_row, holds_column = row < rows, column < columns
    x_place = x + row.to(tl.int64)[:, None] * x_row + depth[None, :]
    weight_row = weight + column.to(tl.int64)[:, None] * width
    if overlaps and ahead_bytes > 0:
        line = tl.arange(0, ahead_bytes // LINE_BYTES) * (LINE_BYTES // 2)
        _prefetch(weight_row + line[None, :])
        if gates:
            _prefetch(weight_row + columns * width + line[None, :])
    await_inputs(overlaps)
    shape: tl.constexpr = (block_columns, block_rows) if swaps else (block_rows, block_columns)
    sums = tl.zeros(shape, tl.float32)
    up_sums = tl.zeros(shape, tl.float32)
    for start in range(0, width, block_depth):
        holds = start + depth < width
        mask = holds_row[:, None] if is_even else holds_row[:, None] & holds[None, :]
        left = tl.load(x_place + start, mask=mask, other=0.0)
        mask = holds_column[:, None] & holds[None, :]
        place = weight_row + start + depth[None, :]
        sums = _add_product(sums, left, place, mask, is_even, swaps, precision)
        if gates:
            up_sums = _add_product(up_sums, left, place + columns * width, mask, is_even, swaps, precision)
    if gates:
        sums = sums / (1.0 + tl.exp(-sums)) * up_sums
    if swaps:
        sums = tl.trans(sums)
    if has_bias:
        sums += tl.load(bias + column, mask=holds_column, other=0.0).to(tl.float32)[None, :]
    place = out + row.to(tl.int64)[:, None] * out_row + column[None, :]
    mask = holds_row[:, None] & holds_column[None, :]
    if adds:
        sums += tl.load(place, mask=mask, other=0.0).to(tl.float32)
    tl.store(place, sums.to(out.dtype.element_ty), mask=mask)


def key_of(x: Tensor, columns: int) -> Key:
    return bucket(x.shape[0]), x.shape[1], columns, str(x.dtype).removeprefix("torch.")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, configuration: Configuration) -> Tensor:
    """Twin of ``dllm_kernels.linear.linear`` for at most ``MOST_ROWS`` rows."""
    out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    _launch(x, weight, bias, out, configuration)
    return out


def gated_linear(x: Tensor, gate_up: Tensor, configuration: Configuration) -> Tensor:
    """Twin of ``dllm_kernels.linear.gated_linear`` for at most ``MOST_ROWS`` rows."""
    out = torch.empty(x.shape[0], gate_up.shape[0] // 2, dtype=x.dtype, device=x.device)
    _launch(x, gate_up, None, out, configuration, gates=True)
    return out


def add_linear(x: Tensor, weight: Tensor, residual: Tensor, configuration: Configuration) -> None:
    """Twin of ``dllm_kernels.linear.add_linear`` for at most ``MOST_ROWS`` rows; the sum is rounded once."""
    _launch(x, weight, None, residual, configuration, adds=True)


def _launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    configuration: Configuration,
    *,
    gates: bool = False,
    adds: bool = False,
) -> None:
    (rows, width), columns, blocks = x.shape, out.shape[1], configuration.blocks
    if not rows:
        return
    _stream[(cdiv(columns, blocks["block_columns"]),)](
        x,
        weight,
        x if bias is None else bias,
        out,
        rows,
        x.stride(0),
        out.stride(0),
        width=width,
        columns=columns,
        gates=gates,
        adds=adds,
        has_bias=bias is not None,
        precision=dot_precision(x),
        is_even=width % blocks["block_depth"] == 0 and columns % blocks["block_columns"] == 0,
        block_rows=max(16, power_of_two(rows)),
        **configuration.launch,
        **overlapping(x),
    )
