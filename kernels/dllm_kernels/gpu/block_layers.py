"""The linear layers of one block of a model, to be measured as they run: one after the other, over the
weights of several blocks, so that no cache holds them."""

from __future__ import annotations

from torch import Tensor

from dllm_kernels.backend import Operations
from dllm_kernels.gpu import few_rows
from dllm_kernels.gpu.example_inputs import ModelShape

BLOCKS = 4  # whose weights are measured in turn


def block_layers(shape: ModelShape) -> tuple[tuple[str, tuple[int, int]], ...]:
    """In their order: kernel and the weights' shape."""
    attention = (
        (few_rows.LINEAR, (shape.qkv_width, shape.d_model)),
        (few_rows.ADD_LINEAR, (shape.d_model, shape.heads * shape.head_dim)),
    )
    mlp = (
        (few_rows.GATED_LINEAR, (2 * shape.mlp_width, shape.d_model)),
        (few_rows.ADD_LINEAR, (shape.d_model, shape.mlp_width)),
    )
    return (*attention, *mlp) if shape.mlp_width else attention


def apply_layer(run: Operations, kernel: str, x: Tensor, weight: Tensor, residual: Tensor) -> None:
    """``x`` ``[rows, width]`` through ``weight``; what the kernel adds goes to ``residual``
    ``[rows, columns]``."""
    if kernel == few_rows.ADD_LINEAR:
        run.add_linear(x, weight, residual)
    elif kernel == few_rows.GATED_LINEAR:
        run.gated_linear(x, weight)
    else:
        run.linear(x, weight)
