"""Device functions of attention over keys that come tile by tile."""

from __future__ import annotations

import triton.language as tl

from dllm_kernels.gpu.jit import jit


@jit
def absorb_keys(
    scores: tl.tensor,
    v: tl.tensor,
    top: tl.tensor,
    total: tl.tensor,
    mean: tl.tensor,
    precision: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The running state after a tile.

    Args:
        scores: float32 [queries, keys] in units of log 2; all of a row may be -inf where ``top`` is finite.
        v: [keys, dim].
        top: the largest score so far.
        total: the sum of 2**(score - top).
        mean: float32 [queries, dim], the values' sum so weighted.
    """
    new_top = tl.maximum(top, tl.max(scores, 1))
    weight = tl.exp2(scores - new_top[:, None])
    decay = tl.exp2(top - new_top)
    total = total * decay + tl.sum(weight, 1)
    mean = mean * decay[:, None]
    mean = tl.dot(weight.to(v.dtype), v, mean, input_precision=precision)
    return new_top, total, mean
