"""Root-mean-square layer norm."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / rms(x) * weight`` over the last dimension, computed in float32. NaN where the mean square
    overflows float32, which would give a row of zeros that looks sound.

    Args:
        x: ``[tokens, width]``, any float dtype.
        weight: ``[width]``.

    Returns:
        ``[tokens, width]`` in the dtype of ``x``.
    """
    wide = x.float()
    scale = torch.rsqrt(torch.linalg.vecdot(wide, wide).unsqueeze(-1) / x.shape[-1] + eps)
    scale = torch.where(scale > 0, scale, torch.nan)
    return (wide * scale).to(x.dtype) * weight
