"""Routing by PyTorch's own launches."""

from __future__ import annotations

import torch
from torch import Tensor

from dllm_kernels import routing
from dllm_kernels.gpu.configurations import ConfigurationTable
from dllm_kernels.routing import RoutingRule


def router_logits(table: ConfigurationTable, x: Tensor, weight: Tensor) -> Tensor:
    """Twin of ``dllm_kernels.routing.router_logits``."""
    if x.is_cuda and x.dtype != torch.float32:
        return torch.mm(x, weight.t(), out_dtype=torch.float32)
    return routing.router_logits(x, weight)


def route(
    table: ConfigurationTable, logits: Tensor, bias: Tensor | None, rule: RoutingRule
) -> tuple[Tensor, Tensor]:
    """Twin of ``dllm_kernels.routing.route``."""
    return routing.route(logits, bias, rule)
