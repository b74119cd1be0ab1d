"""How many masked tokens of a block to commit in a step, and which: pure functions on ``[requests, block]``
tensors.

``confidence`` is float32, higher is surer; ``is_masked`` bool. Each returns bool, a subset of ``is_masked``,
with at least the most confident masked position of each request that has one, so that a step always makes
progress. Ties go to the lower position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dllm_server.engine.requests.slots import STRATEGIES
from dllm_server.settings import Strategy


def by_quota(confidence: Tensor, is_masked: Tensor, quota: Tensor) -> Tensor:
    """The ``quota`` [requests] most confident masked positions (LLaDA's fixed schedule)."""
    return (_rank(confidence, is_masked) < quota[:, None]) & is_masked


def by_threshold(confidence: Tensor, is_masked: Tensor, threshold: Tensor) -> Tensor:
    """Every masked position whose confidence reaches ``threshold`` [requests] (Fast-dLLM's parallel
    decoding)."""
    is_sure = confidence >= threshold[:, None]
    return (is_sure | (_rank(confidence, is_masked) == 0)) & is_masked


def by_factor(confidence: Tensor, is_masked: Tensor, factor: Tensor) -> Tensor:
    """The largest n with c_n >= 1 - f / (n + 1) over confidences c_1 >= c_2 >= ... (Fast-dLLM's factor
    strategy)."""
    rank = _rank(confidence, is_masked)
    ordered = _ordered(confidence, is_masked, rank)
    n = torch.arange(1, confidence.shape[1] + 1, device=confidence.device)
    passes = ordered >= 1.0 - factor[:, None] / (n + 1)
    count = torch.where(passes, n, 1).amax(dim=1)
    return (rank < count[:, None]) & is_masked


def by_entropy_bound(entropy: Tensor, is_masked: Tensor, bound: Tensor) -> Tensor:
    """By ascending entropy, accept while the sum of the *previous* entropies stays within ``bound``
    [requests]."""
    rank = _rank(-entropy, is_masked)
    ordered = -_ordered(-entropy, is_masked, rank)
    previous = ordered.cumsum(dim=1) - ordered
    count = ((previous <= bound[:, None]) & ordered.isfinite()).sum(dim=1).clamp_min(1)
    return (rank < count[:, None]) & is_masked


def choose_commits(
    confidence: Tensor,
    entropy: Tensor,
    is_masked: Tensor,
    strategy: Tensor,
    value: Tensor,
    used: frozenset[Strategy],
) -> Tensor:
    """Each request by its own strategy.

    Args:
        strategy: int64 ``[requests]``, index into ``STRATEGIES``. value: float32 ``[requests]``, the
        strategy's value. used: the strategies that occur; others are not computed.
    """
    committed = torch.zeros_like(is_masked)
    for index, name in enumerate(STRATEGIES):
        if name not in used:
            continue
        match name:
            case Strategy.QUOTA:
                chosen = by_quota(confidence, is_masked, value)
            case Strategy.THRESHOLD:
                chosen = by_threshold(confidence, is_masked, value)
            case Strategy.FACTOR:
                chosen = by_factor(confidence, is_masked, value)
            case Strategy.ENTROPY_BOUND:
                chosen = by_entropy_bound(entropy, is_masked, value)
        if len(used) == 1:
            return chosen
        committed |= chosen & (strategy == index)[:, None]
    return committed


def _rank(confidence: Tensor, is_masked: Tensor) -> Tensor:
    """0 for the most confident masked position of a row, 1 for the next ...; unmasked positions come last."""
    order = confidence.masked_fill(~is_masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    columns = torch.arange(confidence.shape[1], device=confidence.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, columns)


def _ordered(confidence: Tensor, is_masked: Tensor, rank: Tensor) -> Tensor:
    """Confidences by rank; ``-inf`` past the masked ones."""
    return torch.empty_like(confidence).scatter_(1, rank, confidence.masked_fill(~is_masked, -torch.inf))
