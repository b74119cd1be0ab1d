"""The gated activation of the feed-forward layer, rounded once."""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.configurations import ConfigurationTable, Key, bucket
from dllm_kernels.gpu.jit import await_inputs, cdiv, kernel, overlapping

KERNEL = "silu_and_multiply"


@kernel("gate_up", "out")
def _gate(
    gate_up: tl.tensor,
    out: tl.tensor,
    row_stride: tl.tensor,
    width: tl.constexpr,
    block_columns: tl.constexpr,
    overlaps: tl.constexpr,
) -> None:
    await_inputs(overlaps)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block_columns + tl.arange(0, block_columns)
    mask = column < width
    gate = tl.load(gate_up + row * row_stride + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + width + column, mask=mask, other=0.0).to(tl.float32)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * width + column, result.to(out.dtype.element_ty), mask=mask)


def key_of(gate_up: Tensor) -> Key:
    return bucket(gate_up.shape[0]), gate_up.shape[1] // 2, str(gate_up.dtype).removeprefix("torch.")


def silu_and_multiply(table: ConfigurationTable, gate_up: Tensor) -> Tensor:
    """Twin of ``dllm_kernels.swiglu.silu_and_multiply``."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    if rows:
        configuration = table.get(KERNEL, key_of(gate_up))
        _gate[(rows, cdiv(width, configuration.blocks["block_columns"]))](
            gate_up, out, gate_up.stride(0), width=width, **configuration.launch, **overlapping(gate_up)
        )
    return out
