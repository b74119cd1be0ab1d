"""How many masked tokens of a block to commit in a step, and which: pure functions on ``[requests, block]``
tensors.

``confidence`` is float32, higher is surer; ``is_masked`` bool. Each returns bool, a subset of ``is_masked``,
with at least the most confident masked position of each request that has one, so that a step always makes
progress. Ties go to the lower position.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_server.engine.requests.slots import STRATEGIES
from dllm_server.settings import Strategy


@dataclass(frozen=True, slots=True)
class CommitRule:
    """How a step's requests choose what they commit.

    ``quota`` int64, ``threshold`` and ``value`` float32, ``strategy`` int64 (index into ``STRATEGIES``), all
    ``[requests]``; ``strategies`` are those that occur. ``counts_own``: see ``by_entropy_bound``.
    """

    quota: Tensor
    threshold: Tensor
    value: Tensor
    strategy: Tensor
    strategies: frozenset[Strategy]
    counts_own: bool

    @property
    def is_by_rank(self) -> bool:
        """Whether ``quota`` and ``threshold`` say all."""
        return not self.strategies & {Strategy.FACTOR, Strategy.ENTROPY_BOUND}


def by_rank(confidence: Tensor, is_masked: Tensor, quota: Tensor, threshold: Tensor) -> Tensor:
    """The ``quota`` [requests] most confident masked positions, and every one whose confidence reaches
    ``threshold`` [requests]: LLaDA's fixed schedule, Fast-dLLM's parallel decoding, or both."""
    is_sure = confidence >= threshold[:, None]
    return (is_sure | (_rank(confidence, is_masked) < quota[:, None])) & is_masked


def by_factor(confidence: Tensor, is_masked: Tensor, factor: Tensor) -> Tensor:
    """The largest n with c_n >= 1 - f / (n + 1) over confidences c_1 >= c_2 >= ... (Fast-dLLM's factor
    strategy)."""
    rank = _rank(confidence, is_masked)
    ordered = _ordered(confidence, is_masked, rank)
    n = torch.arange(1, confidence.shape[1] + 1, device=confidence.device)
    passes = ordered >= 1.0 - factor[:, None] / (n + 1)
    count = torch.where(passes, n, 1).amax(dim=1)
    return (rank < count[:, None]) & is_masked


def by_entropy_bound(entropy: Tensor, is_masked: Tensor, bound: Tensor, *, counts_own: bool) -> Tensor:
    """By ascending entropy, accept while the sum of the *previous* entropies stays within ``bound``
    [requests], or with ``counts_own`` while that of the previous and its own stays below (SDAR)."""
    rank = _rank(-entropy, is_masked)
    ordered = -_ordered(-entropy, is_masked, rank)
    total = ordered.cumsum(dim=1)
    is_within = total < bound[:, None] if counts_own else total - ordered <= bound[:, None]
    count = (is_within & ordered.isfinite()).sum(dim=1).clamp_min(1)
    return (rank < count[:, None]) & is_masked


def choose_commits(confidence: Tensor, entropy: Tensor, is_masked: Tensor, rule: CommitRule) -> Tensor:
    """Each request by its own strategy; strategies that do not occur are not computed."""
    others: dict[Strategy, Callable[[], Tensor]] = {
        Strategy.FACTOR: lambda: by_factor(confidence, is_masked, rule.value),
        Strategy.ENTROPY_BOUND: lambda: by_entropy_bound(
            entropy, is_masked, rule.value, counts_own=rule.counts_own
        ),
    }
    used = [strategy for strategy in others if strategy in rule.strategies]
    if len(used) == len(rule.strategies) == 1:
        return others[used[0]]()
    committed = by_rank(confidence, is_masked, rule.quota, rule.threshold)
    for strategy in used:
        is_its = (rule.strategy == STRATEGIES.index(strategy))[:, None]
        committed = torch.where(is_its, others[strategy](), committed)
    return committed


def _rank(confidence: Tensor, is_masked: Tensor) -> Tensor:
    """0 for the most confident masked position of a row, 1 for the next ...; unmasked positions come last."""
    order = confidence.masked_fill(~is_masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
    columns = torch.arange(confidence.shape[1], device=confidence.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, columns)


def _ordered(confidence: Tensor, is_masked: Tensor, rank: Tensor) -> Tensor:
    """Confidences by rank; ``-inf`` past the masked ones."""
    return torch.empty_like(confidence).scatter_(1, rank, confidence.masked_fill(~is_masked, -torch.inf))
