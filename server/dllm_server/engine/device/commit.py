"""From the tokens that rows chose to the tokens that a step commits."""

from __future__ import annotations

from dataclasses import replace

import torch
from dllm_kernels.backend import Operations
from dllm_kernels.commit import MASKED
from dllm_kernels.lm_head import Choice
from dllm_kernels.noise import uniform
from torch import Tensor

from dllm_server.engine.device.denoise import choose_commits
from dllm_server.engine.device.head_inputs import HeadInputs
from dllm_server.engine.requests.slots import BY_POSITION, CONFIDENCES
from dllm_server.settings import Confidence

OTHER_NOISE = 0x5BD1E995  # ranks do not share the tokens' noise


def commit(head: HeadInputs, choice: Choice, canvas: Tensor, host: Tensor, operations: Operations) -> None:
    """Write committed tokens to ``canvas``, last of all, so that nothing is committed where anything fails.

    Args:
        canvas: int64, flat. Rows of ``head`` that it no longer masks are left alone: an earlier step may have
            committed them since the host looked.
        host: int32 ``[2, requests, block]`` on the host, written when the device gets there: the token, -1
            where none was committed; and the bits of the float32 log probability of each row's token under
            the clean logits.
    """
    result = torch.empty(host.shape, dtype=torch.int32, device=canvas.device)
    confidence, rows = _confidence(head, choice), head.commits
    if not head.rule.is_by_rank:
        is_committed = _choose(head, confidence, choice.entropy, canvas, result.shape[1:])
        # By threshold: infinite where it is committed, and no other reaches that.
        decided = torch.where(is_committed, torch.inf, -torch.inf)
        is_open = canvas[rows.canvas] == MASKED  # what is edited keeps its own
        confidence = decided if rows.edit is None else torch.where(is_open, decided, confidence)
        ones, zeros = torch.ones_like(rows.threshold), torch.zeros_like(rows.quota)
        rows = replace(rows, quota=zeros, threshold=ones)
    operations.commit_rows(confidence, choice.token, choice.probability, rows, canvas, result)
    host.copy_(result, non_blocking=True)


def _choose(
    head: HeadInputs, confidence: Tensor, entropy: Tensor, canvas: Tensor, grid: tuple[int, ...]
) -> Tensor:
    """Bool ``[masked]``: what the requests' strategies commit."""
    cell = head.commits.cell
    is_masked = torch.zeros(grid, dtype=torch.bool, device=canvas.device)
    is_masked.view(-1)[cell] = canvas[head.commits.canvas] == MASKED
    dense = torch.zeros(2, *grid, device=canvas.device)
    dense.view(2, -1)[:, cell] = torch.stack((confidence, entropy))
    committed = choose_commits(dense[0], dense[1], is_masked, head.rule)
    return committed.view(-1)[cell]


def _confidence(head: HeadInputs, choice: Choice) -> Tensor:
    if len(head.confidences) == 1:
        (kind,) = head.confidences
        return _ranking(kind, head, choice)
    result = choice.probability
    for kind in head.confidences:
        result = torch.where(head.confidence == kind, _ranking(kind, head, choice), result)
    return result


def _ranking(kind: int, head: HeadInputs, choice: Choice) -> Tensor:
    """What ranks positions by ``kind``, an index into ``CONFIDENCES`` or ``BY_POSITION``."""
    if kind == BY_POSITION:
        return -head.commits.cell.float()
    match CONFIDENCES[kind]:
        case Confidence.PROBABILITY:
            return choice.probability
        case Confidence.MARGIN:
            return choice.margin
        case Confidence.ENTROPY:
            return -choice.entropy
        case Confidence.RANDOM:
            return _random(head.keys)


def _random(keys: Tensor | None) -> Tensor:
    assert keys is not None, "random confidence always has noise keys"  # noqa: S101
    return uniform(keys ^ OTHER_NOISE, 1)[:, 0]
