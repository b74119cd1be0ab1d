"""Device functions of ``dllm_kernels.noise``: the same words, bit for bit."""

from __future__ import annotations

import triton
import triton.language as tl

from dllm_kernels.gpu.jit import jit

_IS_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
_LOG_2 = tl.constexpr(0.6931471805599453)


@jit
def mix(word: tl.tensor) -> tl.tensor:
    """``noise._mix`` on uint32 words."""
    word = word ^ (word >> 16)
    word = word * 0x7FEB352D
    word = word ^ (word >> 15)
    word = word * 0x846CA68B
    return word ^ (word >> 16)


@jit
def _log2(value: tl.tensor) -> tl.tensor:
    """Within 2**-22 by the device's own instruction: a library's exact logarithm takes some 20."""
    if _IS_INTERPRETED:
        result = tl.log2(value)
    else:
        result = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [value], dtype=tl.float32, is_pure=True, pack=1
        )
    return result


@jit
def gumbel(key: tl.tensor, column: tl.tensor) -> tl.tensor:
    """``noise.gumbel`` at uint32 ``key`` [rows, 1] and int32 ``column`` [1, columns] -> float32
    [rows, columns]. Uniforms near 1 make the largest noise: there -log(uniform) is a series."""
    spread = column.to(tl.uint32) * 0x9E3779B9
    word = mix(mix(key ^ spread) ^ key)
    # The digits of a float in [1, 2); what is taken away leaves the half a digit of ``noise.uniform``.
    digits = ((word >> 9) | 0x3F800000).to(tl.float32, bitcast=True)
    uniform = digits - 0.999999940395355224609375  # 1 - 2**-24
    rest = 1.0 - uniform
    series = rest * (1.0 + rest * (0.5 + rest * (1.0 / 3.0 + rest * (0.25 + rest * 0.2))))
    energy = tl.where(rest < 0.0625, series, _log2(uniform) * -_LOG_2)
    return _log2(energy) * -_LOG_2
