"""Root-mean-square layer norm."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / rms(x) * weight`` over the last dimension, computed in float32.

    Args:
        x: ``[tokens, width]``, any float dtype.
        weight: ``[width]``.

    Returns:
        ``[tokens, width]`` in the dtype of ``x``.
    """
    return torch.nn.functional.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype) * weight
