"""Device functions of ``dllm_kernels.noise``: the same words, bit for bit."""

from __future__ import annotations

import triton.language as tl

from dllm_kernels.gpu.jit import jit


@jit
def mix(word: tl.tensor) -> tl.tensor:
    """``noise._mix`` on uint32 words."""
    word = word ^ (word >> 16)
    word = word * 0x7FEB352D
    word = word ^ (word >> 15)
    word = word * 0x846CA68B
    return word ^ (word >> 16)


@jit
def gumbel(key: tl.tensor, column: tl.tensor) -> tl.tensor:
    """``noise.gumbel`` at uint32 ``key`` [rows, 1] and int32 ``column`` [1, columns] -> float32
    [rows, columns]."""
    spread = column.to(tl.uint32) * 0x9E3779B9
    word = mix(mix(key ^ spread) ^ key)
    # The digits of a float in [1, 2); what is taken away leaves the half a digit of ``noise.uniform``.
    digits = ((word >> 9) | 0x3F800000).to(tl.float32, bitcast=True)
    uniform = digits - 0.999999940395355224609375  # 1 - 2**-24
    return -tl.log(-tl.log(uniform))
