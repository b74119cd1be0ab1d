"""Counter-based Gumbel noise: a pure function of (request seed, position, step, token), so that a request's
samples depend neither on its batch nor on the device."""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


def noise_keys(seed: Tensor, position: Tensor, step: Tensor) -> Tensor:
    """One 32-bit key a row from int64 ``[rows]`` each; all 64 bits of the seed count. Returns int64
    ``[rows]``."""
    key = _mix((seed & _WORD) ^ 0x9E3779B9)
    key = _mix(key ^ ((seed >> 32) & _WORD))
    key = _mix((key + position) & _WORD)
    return _mix((key ^ (step * 0x85EBCA6B)) & _WORD)


def uniform(keys: Tensor, columns: int) -> Tensor:
    """Float32 ``[rows, columns]`` in (0, 1): odd multiples of 2**-24, exact in float32, never 0 or 1."""
    column = torch.arange(columns, dtype=torch.int64, device=keys.device)
    word = _mix(_mix(keys[:, None] ^ ((column * 0x9E3779B9) & _WORD)) ^ keys[:, None])
    return ((word >> 9).to(torch.float32) + 0.5) * 2.0**-23


def gumbel(keys: Tensor, columns: int) -> Tensor:
    """Standard Gumbel noise, float32 ``[rows, columns]``; ``argmax(logits / T + gumbel)`` samples
    ``softmax(logits / T)``."""
    return -torch.log(-torch.log(uniform(keys, columns)))


def _mix(word: Tensor) -> Tensor:
    """A bijection of 32-bit words with low bias (Wellons' two-round multiply-xorshift constants), held in
    int64."""
    word = word ^ (word >> 16)
    word = (word * 0x7FEB352D) & _WORD
    word = word ^ (word >> 15)
    word = (word * 0x846CA68B) & _WORD
    return word ^ (word >> 16)
