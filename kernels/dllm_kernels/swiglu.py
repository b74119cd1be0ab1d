"""The gated activation of the feed-forward layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def silu_and_multiply(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``gate_up`` ``[tokens, 2 * width]`` (gate first) -> ``[tokens, width]``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
