"""Linear layers: the library's product and a kernel of our own after it, or all in one kernel where rows are
few and that measured faster."""

from __future__ import annotations

from enum import StrEnum

import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.gpu import few_rows, swiglu
from dllm_kernels.gpu.configurations import ConfigurationTable, Key


class Variant(StrEnum):
    LIBRARY = "library"
    STREAMED = "streamed"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, table: ConfigurationTable) -> Tensor:
    """Twin of ``dllm_kernels.linear.linear``."""
    key = few_rows.key_of(x, weight.shape[0])
    if _is_streamed(few_rows.LINEAR, key, x, table):
        return few_rows.linear(x, weight, bias, table.get(few_rows.LINEAR, key))
    return F.linear(x, weight, bias)


def gated_linear(x: Tensor, gate_up: Tensor, *, table: ConfigurationTable) -> Tensor:
    """Twin of ``dllm_kernels.linear.gated_linear``."""
    key = few_rows.key_of(x, gate_up.shape[0] // 2)
    if _is_streamed(few_rows.GATED_LINEAR, key, x, table):
        return few_rows.gated_linear(x, gate_up, table.get(few_rows.GATED_LINEAR, key))
    return swiglu.silu_and_multiply(F.linear(x, gate_up), table=table)


def add_linear(x: Tensor, weight: Tensor, residual: Tensor, *, table: ConfigurationTable) -> None:
    """Twin of ``dllm_kernels.linear.add_linear``; the sum is rounded once."""
    key = few_rows.key_of(x, weight.shape[0])
    if _is_streamed(few_rows.ADD_LINEAR, key, x, table):
        few_rows.add_linear(x, weight, residual, table.get(few_rows.ADD_LINEAR, key))
    else:
        residual.addmm_(x, weight.t())


def _is_streamed(kernel: str, key: Key, x: Tensor, table: ConfigurationTable) -> bool:
    return x.shape[0] <= few_rows.MOST_ROWS and table.variant(kernel, key) == Variant.STREAMED
