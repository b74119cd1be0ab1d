"""The routed feed-forward layer by PyTorch's own launches, which read the counts of tokens on the host."""

from __future__ import annotations

from torch import Tensor

from dllm_kernels import experts as reference
from dllm_kernels.gpu.configurations import ConfigurationTable


def add_experts_mlp(
    table: ConfigurationTable,
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    experts: Tensor,
    weights: Tensor,
    residual: Tensor,
) -> None:
    """Twin of ``dllm_kernels.experts.add_experts_mlp``."""
    reference.add_experts_mlp(x, gate_up, down, experts, weights, residual)
