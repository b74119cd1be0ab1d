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
    uniform = ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2**-23
    return -tl.log(-tl.log(uniform))
