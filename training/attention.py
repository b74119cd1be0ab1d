"""Masked attention whose gradients do not depend on the order in which a GPU's blocks finish."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]  # not cuDNN's


class _Attention(torch.autograd.Function):
    """PyTorch's attention, its gradients taken in deterministic mode.

    Outside it the memory-efficient kernel adds up a query's gradient in any order, which shows in long rows.
    The mode is set here alone: everywhere it would send the gradient of every gather through a sort.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        queries, keys, values = (tensor.detach().requires_grad_() for tensor in (queries, keys, values))
        with torch.enable_grad(), sdpa_kernel(BACKENDS):
            attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        ctx.inputs, ctx.attended = (queries, keys, values), attended
        return attended.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        was_deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            return *torch.autograd.grad(ctx.attended, ctx.inputs, gradients), None
        finally:
            torch.use_deterministic_algorithms(was_deterministic)


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """[batch, heads, queries, head_dim]; `mask` is bool and broadcasts to [batch, heads, queries, keys]."""
    if not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    attended: Tensor = _Attention.apply(queries, keys, values, mask)  # type: ignore[no-untyped-call]
    return attended
