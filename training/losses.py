"""Mean losses, of all rows and of each family's, kept on the device until a log line asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DIGITS = 5


class LossTotals:
    """Sums over rows since the last `take`. No gradient passes through here."""

    def __init__(self, families: Sequence[str], device: torch.device) -> None:
        self.families = families
        self.sums = torch.zeros(3, len(families), device=device)  # of refresh loss, of reuse loss, of rows

    def add(self, family: Tensor, refresh: Tensor, reuse: Tensor) -> None:
        """A micro-batch's losses and the indices of their families, all [batch]. Waits for no device.

        A masked sum: `index_add_` on CUDA adds in an order of its own in every run.
        """
        is_of_family = family == torch.arange(len(self.families), device=family.device)[:, None]
        rows = torch.stack([refresh.detach(), reuse.detach(), torch.ones_like(refresh)])
        self.sums += (rows[:, None] * is_of_family).sum(-1)

    def take(self) -> dict[str, Any]:
        """A log line's mean losses, and a new beginning. A family that had no rows is left out."""
        refresh, reuse, rows = self.sums.tolist()
        self.sums.zero_()
        return {
            "refresh_loss": round(sum(refresh) / sum(rows), DIGITS),
            "reuse_loss": round(sum(reuse) / sum(rows), DIGITS),
            "families": self._means(refresh, rows),
            "families_reuse": self._means(reuse, rows),
        }

    def _means(self, sums: list[float], rows: list[float]) -> dict[str, float]:
        each = zip(self.families, sums, rows, strict=True)
        return {family: round(total / count, DIGITS) for family, total, count in each if count}
