"""Which of a step's chosen tokens are committed to the canvas, by rank and by threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MASKED = -1  # on a canvas, where no token is committed
NOT_FINITE = -2  # in a result, where a row's probability is no number


@dataclass(frozen=True, slots=True)
class CommitRows:
    """Rows that chose a token, request by request in the order of their positions.

    Attributes:
        canvas: int64 ``[rows]``, a row's place on the canvas.
        cell: int64 ``[rows]``, its cell of the ``[requests, block]`` grid.
        first: int32 ``[requests + 1]``, each request's first row, then the number of rows.
        quota: int64 ``[requests]``, how many of the most confident to commit.
        threshold: float32 ``[requests]``, the confidence from which all are committed.
        edit: float32 ``[rows]``, the confidence above which another token replaces one that is there; None
            where none is replaced.
    """

    canvas: Tensor
    cell: Tensor
    first: Tensor
    quota: Tensor
    threshold: Tensor
    edit: Tensor | None = None


def commit_rows(
    confidence: Tensor, token: Tensor, probability: Tensor, rows: CommitRows, canvas: Tensor, result: Tensor
) -> None:
    """Write what is committed to the canvas, last of all. Rows that the canvas no longer masks are passed
    over unless they are edited; ties of confidence go to the lower position. A request with a row whose
    probability is not finite commits nothing.

    Args:
        confidence, probability: float32 ``[rows]``. token: int64 ``[rows]``.
        canvas: int64, flat, ``MASKED`` where no token is committed.
        result: int32 ``[2, requests, block]``, written: the token, ``MASKED`` where none was committed,
            ``NOT_FINITE`` where a row's probability is not; the bits of the float32 log probability.
    """
    requests, block = result.shape[1:]
    before = canvas[rows.canvas]
    is_open = before == MASKED
    is_edited = torch.zeros_like(is_open) if rows.edit is None else ~is_open & (confidence > rows.edit)
    is_broken = (is_open | (rows.edit is not None)) & ~(probability.isfinite() & ~confidence.isnan())
    is_masked, breaks = torch.zeros(2, requests * block, dtype=torch.bool, device=canvas.device)
    is_masked[rows.cell], breaks[rows.cell] = is_open, is_broken
    dense = torch.full((requests * block,), -torch.inf, device=canvas.device)
    dense[rows.cell] = confidence
    dense = dense.masked_fill_(~is_masked, -torch.inf).view(requests, block)
    order = dense.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(block, device=canvas.device).expand_as(order))
    chosen = (rank < rows.quota[:, None]) | (dense >= rows.threshold[:, None])
    chosen &= ~breaks.view(requests, block).any(dim=1, keepdim=True)
    is_committed = (chosen.view(-1) & is_masked)[rows.cell]
    logprobs = probability.clamp_min(torch.finfo(torch.float32).tiny).log()
    if rows.edit is not None:
        is_sound = ~breaks.view(requests, block).any(dim=1)[rows.cell // block]
        is_committed |= is_edited & is_sound & (token != before)
    tokens = torch.where(is_committed, token, before)
    result.fill_(MASKED)
    flat = result.view(2, -1)
    shown = torch.where(is_broken, NOT_FINITE, torch.where(is_committed, token, MASKED))
    flat[0][rows.cell] = shown.to(torch.int32)
    flat[1][rows.cell] = logprobs.view(torch.int32)
    canvas[rows.canvas] = tokens
