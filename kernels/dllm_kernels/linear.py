"""The linear layers of a transformer's block, with the gate or the residual sum that follows them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.swiglu import silu_and_multiply


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x`` ``[tokens, width]`` through ``weight`` ``[out, width]``, ``bias`` ``[out]`` added; one dtype.

    Returns:
        ``[tokens, out]``.
    """
    return F.linear(x, weight, bias)


def gated_linear(x: Tensor, gate_up: Tensor) -> Tensor:
    """``x`` ``[tokens, width]`` through the gated first layer of a feed-forward block.

    Args:
        gate_up: ``[2 * out, width]``, the gate's rows first.

    Returns:
        ``[tokens, out]``.
    """
    return silu_and_multiply(F.linear(x, gate_up))


def add_linear(x: Tensor, weight: Tensor, residual: Tensor) -> None:
    """Add ``x`` ``[tokens, width]`` through ``weight`` ``[out, width]`` to ``residual`` ``[tokens, out]`` in
    place."""
    residual += F.linear(x, weight)
