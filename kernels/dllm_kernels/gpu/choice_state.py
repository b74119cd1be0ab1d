"""What one pass over a row's logits keeps, and how parts of a row combine.

A state is, for each row of a tile: the largest logit ``best`` with its ``index``, the ``second`` largest, the
sum ``total`` of exp(logit - best), the sum ``moment`` of exp(logit - best) * (logit - best), and for sampled
rows the largest ``noisy`` = (logit - best) / temperature + Gumbel noise with its ``noisy_index`` and clean
``noisy_logit``. Entropy is log(total) - moment / total.
"""

from __future__ import annotations

import torch
import triton.language as tl
from torch import Tensor

from dllm_kernels.gpu.jit import cdiv, jit, kernel, power_of_two
from dllm_kernels.gpu.noise import gumbel
from dllm_kernels.lm_head import Choice, Sampling

VALUES = 6  # best, second, total, moment, noisy, noisy_logit
INDICES = 2  # index, noisy_index

LEAST = tl.constexpr(-3e38)  # of an id or a part that does not count; finite, so that it times 0 is 0
_LOG2_E = tl.constexpr(1.4426950408889634)
_NO_INDEX = tl.constexpr(0x7FFFFFFF)
_ROWS_A_PROGRAM = 8


@jit
def empty_state(rows: tl.constexpr) -> tl.tuple:
    least = tl.full((rows,), LEAST, tl.float32)
    zero = tl.zeros((rows,), tl.float32)
    no_index = tl.full((rows,), _NO_INDEX, tl.int32)
    return least, least, zero, zero, least, least, no_index, no_index


@jit
def is_banned(column: tl.tensor, banned: tl.tensor, banned_count: tl.tensor) -> tl.tensor:
    """Bool like ``column``."""
    result = column < 0
    for position in range(banned_count):
        result = result | (column == tl.load(banned + position).to(tl.int32))
    return result


@jit
def holds_out(
    first: tl.tensor, end: tl.tensor, vocabulary: tl.tensor, banned: tl.tensor, banned_count: tl.tensor
) -> tl.tensor:
    """Whether any id from ``first`` below ``end`` does not count: most tiles need no mask."""
    result = end > vocabulary
    for position in range(banned_count):
        place = tl.load(banned + position).to(tl.int32)
        result = result | ((place >= first) & (place < end))
    return result


@jit
def absorb(
    logits: tl.tensor,
    column: tl.tensor,
    state: tl.tuple,
    key: tl.tensor,
    coolness: tl.tensor,
    is_sampled: tl.constexpr,
) -> tl.tuple:
    """The state after float32 ``logits`` [rows, columns] whose ids are ``column`` int32 [columns], above all
    earlier ids; ids that do not count are ``LEAST``. ``coolness`` is 1 / temperature."""
    best, second, total, moment, noisy, noisy_logit, index, noisy_index = state
    ids = column[None, :]
    tile_best = tl.max(logits, 1)
    tile_index = tl.min(tl.where(logits == tile_best[:, None], ids, _NO_INDEX), 1)
    tile_second = tl.max(tl.where(ids == tile_index[:, None], LEAST, logits), 1)
    new_best = tl.maximum(best, tile_best)
    gap = best - new_best
    decay = tl.exp2(gap * _LOG2_E)
    shifted = logits - new_best[:, None]
    weight = tl.exp2(shifted * _LOG2_E)
    earlier = tl.where(decay > 0, decay * (moment + gap * total), 0.0)
    moment = earlier + tl.sum(weight * shifted, 1)
    total = decay * total + tl.sum(weight, 1)
    second = tl.maximum(tl.maximum(second, tile_second), tl.minimum(best, tile_best))
    index = tl.where(tile_best > best, tile_index, index)
    if is_sampled:
        score = shifted * coolness[:, None] + gumbel(key[:, None], ids)
        tile_noisy = tl.max(score, 1)
        tile_noisy_index = tl.min(tl.where(score == tile_noisy[:, None], ids, _NO_INDEX), 1)
        tile_noisy_logit = tl.max(tl.where(ids == tile_noisy_index[:, None], logits, LEAST), 1)
        moved = noisy + gap * coolness
        wins = tile_noisy > moved
        noisy = tl.where(wins, tile_noisy, moved)
        noisy_index = tl.where(wins, tile_noisy_index, noisy_index)
        noisy_logit = tl.where(wins, tile_noisy_logit, noisy_logit)
    return new_best, second, total, moment, noisy, noisy_logit, index, noisy_index


@jit
def row_noise(
    keys: tl.tensor, temperature: tl.tensor, row: tl.tensor, mask: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """uint32 noise keys and 1 / temperature of some rows."""
    key = tl.load(keys + row, mask=mask, other=0).to(tl.uint32)
    warmth = tl.load(temperature + row, mask=mask, other=1.0)
    return key, 1.0 / tl.minimum(tl.maximum(warmth, 1e-30), 1e30)  # finite at 0 and at infinity


@jit
def store_state(
    values: tl.tensor,
    indices: tl.tensor,
    part: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    mask: tl.tensor,
    state: tl.tuple,
    is_sampled: tl.constexpr,
) -> None:
    """Write a part's state to ``values`` float32 [parts, 6, rows] and ``indices`` int32 [parts, 2, rows]."""
    best, second, total, moment, noisy, noisy_logit, index, noisy_index = state
    value = values + part * 6 * rows + row
    tl.store(value, best, mask=mask)
    tl.store(value + rows, second, mask=mask)
    tl.store(value + 2 * rows, total, mask=mask)
    tl.store(value + 3 * rows, moment, mask=mask)
    tl.store(indices + part * 2 * rows + row, index, mask=mask)
    if is_sampled:
        tl.store(value + 4 * rows, noisy, mask=mask)
        tl.store(value + 5 * rows, noisy_logit, mask=mask)
        tl.store(indices + (part * 2 + 1) * rows + row, noisy_index, mask=mask)


@kernel("values", "indices", "temperature", "token", "probability", "margin", "entropy", "rows", "parts")
def _combine(
    values: tl.tensor,
    indices: tl.tensor,
    temperature: tl.tensor,
    token: tl.tensor,
    probability: tl.tensor,
    margin: tl.tensor,
    entropy: tl.tensor,
    rows: tl.tensor,
    parts: tl.tensor,
    vocabulary: tl.tensor,
    block_parts: tl.constexpr,
    block_rows: tl.constexpr,
    is_sampled: tl.constexpr,
) -> None:
    """Reduce all parts of ``block_rows`` rows."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    part = tl.arange(0, block_parts)
    mask = (part < parts)[:, None] & (row < rows)[None, :]
    value = values + part[:, None] * 6 * rows + row[None, :]
    place = indices + part[:, None] * 2 * rows + row[None, :]
    bests = tl.load(value, mask=mask, other=LEAST)
    seconds = tl.load(value + rows, mask=mask, other=LEAST)
    totals = tl.load(value + 2 * rows, mask=mask, other=0.0)
    moments = tl.load(value + 3 * rows, mask=mask, other=0.0)
    index_of_part = tl.load(place, mask=mask, other=_NO_INDEX)
    best = tl.max(bests, 0)
    index = tl.min(tl.where(bests == best[None, :], index_of_part, _NO_INDEX), 0)
    second = tl.max(tl.where(index_of_part == index[None, :], seconds, bests), 0)
    gap = bests - best[None, :]
    decay = tl.exp(gap)
    total = tl.sum(decay * totals, 0)
    moment = tl.sum(tl.where(decay > 0, decay * (moments + gap * totals), 0.0), 0)
    chosen, chosen_logit = index, best
    if is_sampled:
        warmth = tl.load(temperature + row, mask=row < rows, other=0.0)
        coolness = 1.0 / tl.minimum(tl.maximum(warmth, 1e-30), 1e30)
        scores = tl.load(value + 4 * rows, mask=mask, other=LEAST) + gap * coolness[None, :]
        clean = tl.load(value + 5 * rows, mask=mask, other=LEAST)
        noisy_of_part = tl.load(place + rows, mask=mask, other=_NO_INDEX)
        noisy = tl.max(scores, 0)
        noisy_index = tl.min(tl.where(scores == noisy[None, :], noisy_of_part, _NO_INDEX), 0)
        noisy_logit = tl.max(tl.where(noisy_of_part == noisy_index[None, :], clean, LEAST), 0)
        chosen = tl.where(warmth > 0, noisy_index, index)
        chosen_logit = tl.where(warmth > 0, noisy_logit, best)
    kept = row < rows
    chosen = tl.minimum(tl.maximum(chosen, 0), vocabulary - 1)  # a row of NaN names no id
    tl.store(token + row, chosen.to(tl.int64), mask=kept)
    tl.store(probability + row, tl.exp(chosen_logit - best) / total, mask=kept)
    tl.store(margin + row, (1.0 - tl.exp(second - best)) / total, mask=kept)
    tl.store(entropy + row, tl.log(total) - moment / total, mask=kept)


def new_parts(parts: int, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Room for the states of ``parts`` parts of every row: float32 ``[parts, 6, rows]`` and int32
    ``[parts, 2, rows]``."""
    values = torch.empty(parts, VALUES, rows, dtype=torch.float32, device=device)
    return values, torch.empty(parts, INDICES, rows, dtype=torch.int32, device=device)


def combine(values: Tensor, indices: Tensor, sampling: Sampling | None, vocabulary: int) -> Choice:
    """The choice of every row from its parts' states, in one launch."""
    parts, _, rows = values.shape
    token = torch.empty(rows, dtype=torch.int64, device=values.device)
    probability, margin, entropy = values.new_empty(3, rows)
    temperature = values if sampling is None else sampling.temperature
    _combine[(cdiv(rows, _ROWS_A_PROGRAM),)](
        values,
        indices,
        temperature,
        token,
        probability,
        margin,
        entropy,
        rows,
        parts,
        vocabulary,
        block_parts=power_of_two(parts),
        block_rows=_ROWS_A_PROGRAM,
        is_sampled=sampling is not None,
    )
    return Choice(token, probability, margin, entropy)
