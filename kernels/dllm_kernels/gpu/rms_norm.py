"""Root-mean-square layer norm, one row a program."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, kernel, overlapping, power_of_two

KERNEL = "rms_norm"


@kernel("x", "out")
def _normalise(
    x: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    x_row: tl.tensor,
    width: tl.constexpr,
    block_width: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    """Rounds where the twin rounds: after the norm, after the weight."""
    await_inputs(overlaps)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block_width)
    mask = column < width
    value = tl.load(x + row * x_row + column, mask=mask, other=0.0)
    wide = value.to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / width + eps)
    scale = tl.where(scale > 0, scale, float("nan"))  # the mean square has overflowed
    normed = (wide * scale).to(value.dtype).to(tl.float32)
    gain = tl.load(weight + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (normed * gain).to(value.dtype), mask=mask)


def key_of(x: Tensor) -> Key:
    return bucket(x.shape[0]), x.shape[1], str(x.dtype).removeprefix("torch.")


def rms_norm(table: ConfigurationTable, x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Twin of ``dllm_kernels.rms_norm.rms_norm``."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    if rows:
        launch = table.get(KERNEL, key_of(x)).launch
        _normalise[(rows,)](
            x,
            weight,
            out,
            eps,
            x.stride(0),
            width=width,
            block_width=power_of_two(width),
            **launch,
            **overlapping(x),
        )
    return out
