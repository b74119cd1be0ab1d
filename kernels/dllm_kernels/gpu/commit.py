"""Commits of a step in one launch, one request a program."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from dllm_kernels.commit import MASKED, CommitRows
from dllm_kernels.commit import commit_rows as commit_in_torch
from dllm_kernels.gpu.jit import kernel, power_of_two

_RIVALS = 32  # rows that each row is compared with at a time


@kernel(
    "confidence", "token", "probability", "places", "cells", "first", "quota", "threshold", "result", "size"
)
def _commit(
    confidence: tl.tensor,
    token: tl.tensor,
    probability: tl.tensor,
    places: tl.tensor,
    cells: tl.tensor,
    first: tl.tensor,
    quota: tl.tensor,
    threshold: tl.tensor,
    canvas: tl.tensor,
    result: tl.tensor,
    size: tl.tensor,
    block_rows: tl.constexpr,
    block_rivals: tl.constexpr,
) -> None:
    request = tl.program_id(0)
    start = tl.load(first + request)
    count = tl.load(first + request + 1) - start
    row = tl.arange(0, block_rows)
    inside = row < count
    place = tl.load(places + start + row, mask=inside, other=0)
    is_masked = inside & (tl.load(canvas + place, mask=inside, other=0) == -1)
    own = tl.load(confidence + start + row, mask=is_masked, other=float("-inf"))
    rank = tl.zeros((block_rows,), tl.int32)
    for step in range(0, count, block_rivals):
        rival = step + tl.arange(0, block_rivals)
        is_rival = rival < count
        where = tl.load(places + start + rival, mask=is_rival, other=0)
        is_rival = is_rival & (tl.load(canvas + where, mask=is_rival, other=0) == -1)
        theirs = tl.load(confidence + start + rival, mask=is_rival, other=float("-inf"))
        is_tie = (theirs[None, :] == own[:, None]) & (rival[None, :] < row[:, None])
        beats = ((theirs[None, :] > own[:, None]) | is_tie) & is_rival[None, :]
        rank += tl.sum(beats.to(tl.int32), 1)
    is_sure = own >= tl.load(threshold + request)
    chosen = tl.load(token + start + row, mask=inside, other=0)
    share = tl.load(probability + start + row, mask=inside, other=1.0)
    is_number = (share >= 0) & (share < float("inf")) & (own == own)
    is_broken = is_masked & ~is_number
    is_sound = tl.max(is_broken.to(tl.int32), 0) == 0
    is_committed = is_masked & is_sound & ((rank < tl.load(quota + request)) | is_sure)
    logprob = tl.log(tl.maximum(share, 1.1754943508e-38)).to(tl.float32)
    cell = tl.load(cells + start + row, mask=inside, other=0)
    shown = tl.where(is_broken, -2, tl.where(is_committed, chosen, -1))
    tl.store(result + cell, shown.to(tl.int32), mask=inside)
    tl.store(result + size + cell, logprob.to(tl.int32, bitcast=True), mask=inside)
    tl.debug_barrier()  # nobody reads the canvas any more
    tl.store(canvas + place, chosen, mask=is_committed)


def commit_rows(
    confidence: Tensor, token: Tensor, probability: Tensor, rows: CommitRows, canvas: Tensor, result: Tensor
) -> None:
    """Twin of ``dllm_kernels.commit.commit_rows``; ``result`` is contiguous. Edits are PyTorch's."""
    if rows.edit is not None:
        commit_in_torch(confidence, token, probability, rows, canvas, result)
        return
    requests, block = result.shape[1:]
    result.fill_(MASKED)
    _commit[(requests,)](
        confidence,
        token,
        probability,
        rows.canvas,
        rows.cell,
        rows.first,
        rows.quota,
        rows.threshold,
        canvas,
        result,
        requests * block,
        block_rows=max(16, power_of_two(block)),
        block_rivals=_RIVALS,
        num_warps=4,
    )
