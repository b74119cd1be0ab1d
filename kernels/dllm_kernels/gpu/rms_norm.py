"""Root-mean-square layer norm, alone or of a residual sum, one row a program."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import jit, power_of_two

KERNEL = "rms_norm"


@jit("x", "residual", "out")
def _normalise(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    x_row: tl.tensor,
    residual_row: tl.tensor,
    width: tl.constexpr,
    block_width: tl.constexpr,
    adds: tl.constexpr,
) -> None:
    """Rounds where the twin rounds: after the sum, after the norm, after the weight."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block_width)
    mask = column < width
    value = tl.load(x + row * x_row + column, mask=mask, other=0.0)
    if adds:
        place = residual + row * residual_row + column
        held = tl.load(place, mask=mask, other=0.0).to(tl.float32)
        value = (held + value.to(tl.float32)).to(value.dtype)
        tl.store(place, value, mask=mask)
    wide = value.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + eps)
    normed = (wide * scale).to(value.dtype).to(tl.float32)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (normed * gain).to(value.dtype), mask=mask)


def key_of(x: Tensor) -> Key:
    return bucket(x.shape[0]), x.shape[1], str(x.dtype).removeprefix("torch.")


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, table: ConfigurationTable) -> Tensor:
    """Twin of ``dllm_kernels.rms_norm.rms_norm``."""
    return _launch(x, x, weight, eps, table, adds=False)


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, *, table: ConfigurationTable
) -> Tensor:
    """Twin of ``dllm_kernels.rms_norm.add_rms_norm``."""
    return _launch(x, residual, weight, eps, table, adds=True)


def _launch(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, table: ConfigurationTable, *, adds: bool
) -> Tensor:
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    if rows:
        _normalise[(rows,)](
            x,
            residual,
            weight,
            out,
            eps,
            x.stride(0),
            residual.stride(0),
            width=width,
            block_width=power_of_two(width),
            adds=adds,
            **table.get(KERNEL, key_of(x)).launch,
        )
    return out
