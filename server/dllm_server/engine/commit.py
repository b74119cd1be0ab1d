"""From the tokens that rows chose to the tokens that a step commits."""

from __future__ import annotations

import torch
from dllm_kernels.lm_head import Choice
from dllm_kernels.noise import uniform
from torch import Tensor

from dllm_server.engine.denoise import choose_commits
from dllm_server.engine.device_table import MASKED
from dllm_server.engine.head_inputs import HeadInputs
from dllm_server.engine.slots import CONFIDENCES
from dllm_server.settings import Confidence, Strategy

_OTHER_NOISE = 0x5BD1E995  # ranks do not share the tokens' noise


def commit(head: HeadInputs, choice: Choice, grid: tuple[int, int], canvas: Tensor, host: Tensor) -> None:
    """Write committed tokens to ``canvas``, last of all, so that nothing is committed where anything fails.

    Args:
        grid: requests, block.
        canvas: int64, flat. Rows of ``head`` that it no longer masks are left alone: an earlier step may have
            committed them since the host looked.
        host: int32 ``[2, requests * block]`` on the host, written when the device gets there: the token, -1
            where none was committed; and the bits of the float32 log probability of a committed token under
            the clean logits.
    """
    size, device = grid[0] * grid[1], canvas.device
    before = canvas[head.canvas]
    is_masked = torch.zeros(size, dtype=torch.bool, device=device).index_copy_(0, head.cell, before == MASKED)
    confidence = torch.zeros(size, device=device).index_copy_(0, head.cell, _confidence(head, choice))
    entropy = confidence
    if Strategy.ENTROPY_BOUND in head.strategies:
        entropy = torch.zeros_like(confidence).index_copy_(0, head.cell, choice.entropy)
    committed = choose_commits(
        confidence.view(grid),
        entropy.view(grid),
        is_masked.view(grid),
        head.strategy,
        head.value,
        head.strategies,
    )
    is_committed = committed.view(-1)[head.cell]
    tokens = torch.where(is_committed, choice.token, before)
    logprobs = choice.probability.clamp_min(torch.finfo(torch.float32).tiny).log()
    result = torch.full((2, size), -1, dtype=torch.int32, device=device)
    result[0].index_copy_(0, head.cell, torch.where(is_committed, choice.token, -1).to(torch.int32))
    result[1].index_copy_(0, head.cell, logprobs.view(torch.int32))
    host.copy_(result, non_blocking=True)
    canvas[head.canvas] = tokens


def _confidence(head: HeadInputs, choice: Choice) -> Tensor:
    by_kind = {
        Confidence.PROBABILITY: lambda: choice.probability,
        Confidence.MARGIN: lambda: choice.margin,
        Confidence.ENTROPY: lambda: -choice.entropy,
        Confidence.RANDOM: lambda: _random(head.keys),
    }
    if len(head.confidences) == 1:
        (kind,) = head.confidences
        return by_kind[kind]()
    result = choice.probability
    for kind in head.confidences:
        result = torch.where(head.confidence == CONFIDENCES.index(kind), by_kind[kind](), result)
    return result


def _random(keys: Tensor | None) -> Tensor:
    assert keys is not None, "random confidence always has noise keys"  # noqa: S101
    return uniform(keys ^ _OTHER_NOISE, 1)[:, 0]
