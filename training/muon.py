"""Muon (Jordan et al., 2024) with Moonlight's update scale (Liu et al., 2025), batched by shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrices [count, rows, columns], in bf16."""
    a, b, c = _COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.bfloat16().mT if is_tall else matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x.mT if is_tall else x
    return orthogonal.float()


class Muon:
    """Momentum, orthogonalisation and decoupled weight decay for the layers' weight matrices."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, momentum: float, weight_decay: float) -> None:
        groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            groups[parameter.shape].append(parameter)
        self._groups = list(groups.values())
        self._momenta = [torch.zeros_like(torch.stack(group)) for group in self._groups]
        self._momentum, self._weight_decay = momentum, weight_decay

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients."""
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            momentum.lerp_(gradients, 1 - self._momentum)
            update = orthogonalise(gradients.lerp_(momentum, self._momentum))
            update *= 0.2 * max(update.shape[1:]) ** 0.5
            torch._foreach_mul_(group, 1 - learning_rate * self._weight_decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-learning_rate)

    def state_dict(self) -> dict[str, list[Tensor]]:
        """The momenta, one stack a shape."""
        return {"momenta": self._momenta}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """The inverse of `state_dict`."""
        for own, saved in zip(self._momenta, state["momenta"], strict=True):
            own.copy_(saved)
