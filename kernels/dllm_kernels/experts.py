"""The feed-forward layer of which each token takes a few experts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.swiglu import silu_and_multiply


def add_experts_mlp(
    x: Tensor, gate_up: Tensor, down: Tensor, experts: Tensor, weights: Tensor, residual: Tensor
) -> None:
    """Add each token's experts, gated MLPs, at their weights to ``residual`` ``[tokens, d_model]`` in place.
    The sum is taken in float32 in the order of ``experts`` and rounded once.

    Args:
        x: ``[tokens, d_model]``, the dtype of the weights and of ``residual``.
        gate_up: ``[experts, 2 * width, d_model]``, each gate's rows first.
        down: ``[experts, d_model, width]``.
        experts: int32 ``[tokens, taken]``, as ``route`` returns them.
        weights: float32 ``[tokens, taken]``.
    """
    (tokens, taken), count = experts.shape, gate_up.shape[0]
    flat = experts.flatten()
    order = flat.argsort(stable=True)
    rows_of_each: list[int] = torch.bincount(flat, minlength=count).tolist()
    parts = x.new_empty(tokens * taken, x.shape[1])
    for expert, places in enumerate(torch.split(order, rows_of_each)):
        if len(places):
            hidden = silu_and_multiply(F.linear(x[places // taken], gate_up[expert]))
            parts[places] = F.linear(hidden, down[expert])
    weighted = parts.view(tokens, taken, x.shape[1]) * weights.unsqueeze(2)
    residual.copy_(residual + weighted.sum(1))
