"""Linear layers: the library's product and a kernel of our own after it, or all in one kernel where rows are
few and that measured faster."""

from __future__ import annotations

from enum import StrEnum

import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.gpu import few_rows, swiglu
from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable


class Variant(StrEnum):
    LIBRARY = "library"
    STREAMED = "streamed"


def linear(table: ConfigurationTable, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Twin of ``dllm_kernels.linear.linear``."""
    configuration = _streamed(few_rows.LINEAR, x, weight.shape[0], table)
    if configuration is None:
        return F.linear(x, weight, bias)
    return few_rows.linear(x, weight, bias, configuration)


def gated_linear(table: ConfigurationTable, x: Tensor, gate_up: Tensor) -> Tensor:
    """Twin of ``dllm_kernels.linear.gated_linear``."""
    configuration = _streamed(few_rows.GATED_LINEAR, x, gate_up.shape[0] // 2, table)
    if configuration is None:
        return swiglu.silu_and_multiply(table, F.linear(x, gate_up))
    return few_rows.gated_linear(x, gate_up, configuration)


def add_linear(table: ConfigurationTable, x: Tensor, weight: Tensor, residual: Tensor) -> None:
    """Twin of ``dllm_kernels.linear.add_linear``; the sum is rounded once."""
    configuration = _streamed(few_rows.ADD_LINEAR, x, weight.shape[0], table)
    if configuration is None:
        residual.addmm_(x, weight.t())
    else:
        few_rows.add_linear(x, weight, residual, configuration)


def _streamed(kernel: str, x: Tensor, columns: int, table: ConfigurationTable) -> Configuration | None:
    """How our kernel runs, None where the library does. Steps of many rows are told apart without a key."""
    if x.shape[0] > few_rows.MOST_ROWS:
        return None
    key = few_rows.key_of(x, columns)
    return table.get(kernel, key) if table.variant(kernel, key) == Variant.STREAMED else None
