"""Choice of a token for rows that need all of their logits at once: exact top_p and top_k, bans of a row's
own, and the most likely alternatives. A bounded number of whole rows at a time, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from dllm_kernels.lm_head import Choice, Sampling, choose_tokens, float32_logits


@dataclass(frozen=True, slots=True)
class WholeRows:
    """What the rows ask for.

    Attributes:
        sampling: None where every row is greedy.
        top_p: float32 ``[rows]``, 1 keeps all. top_k: int64 ``[rows]``, 0 keeps all. Both None where no row
            draws from a part of the vocabulary.
        banned: int64 ``[rows, ids]``, tokens that a row never chooses and that take no probability there,
            beside those banned for all. None where no row has any.
        allowed: uint8 ``[rows, bytes]``, a bit for each token, the lowest first: others are banned as well.
            None where no row is held to a grammar.
        alternatives: how many of the most likely tokens to name, of every row.
    """

    sampling: Sampling | None = None
    top_p: Tensor | None = None
    top_k: Tensor | None = None
    banned: Tensor | None = None
    allowed: Tensor | None = None
    alternatives: int = 0

    def part(self, rows: slice) -> WholeRows:
        """Of some of the rows."""
        columns = (self.top_p, self.top_k, self.banned, self.allowed)
        top_p, top_k, banned, allowed = (None if one is None else one[rows] for one in columns)
        sampling = self.sampling and self.sampling.rows(rows.start, rows.stop)
        return WholeRows(sampling, top_p, top_k, banned, allowed, self.alternatives)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The most likely tokens of each row, the likeliest first: int64 ``[rows, count]`` and their float32 log
    probabilities under the clean logits, ``-inf`` for banned ones. ``count`` ends with the vocabulary."""

    token: Tensor
    logprob: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of ``parts``, one after the other."""
        return cls(torch.cat([one.token for one in parts]), torch.cat([one.logprob for one in parts]))


def choose_whole(
    hidden: Tensor, weight: Tensor, banned: Tensor, rows: WholeRows, max_num_logits: int
) -> tuple[Choice, Alternatives]:
    """``lm_head.lm_head_choose`` for rows that ask for more.

    Args:
        hidden: ``[rows, d_model]``, at least one row. weight, banned, max_num_logits: see there.
    """
    choices, alternatives = [], []
    for start in range(0, hidden.shape[0], max_num_logits):
        part = slice(start, min(start + max_num_logits, hidden.shape[0]))
        logits = float32_logits(hidden[part], weight)
        logits[:, banned] = -torch.inf
        choice, named = choose_from(logits, rows.part(part))
        choices.append(choice)
        alternatives.append(named)
    return Choice.joined(choices), Alternatives.joined(alternatives)


def choose_from(logits: Tensor, rows: WholeRows) -> tuple[Choice, Alternatives]:
    """Choose from float32 ``logits`` [rows, vocabulary], which are consumed; what is banned for all is
    ``-inf`` there."""
    if rows.banned is not None:
        logits.scatter_(1, rows.banned, -torch.inf)
    if rows.allowed is not None:
        logits.masked_fill_(~_unpacked(rows.allowed, logits.shape[1]), -torch.inf)
    alternatives = _alternatives(logits, rows.alternatives)
    sampling, top_p, top_k = rows.sampling, rows.top_p, rows.top_k
    if sampling is None or top_p is None or top_k is None:
        return choose_tokens(logits, sampling), alternatives
    return choose_tokens(logits, sampling, lambda scaled: keep_likeliest(scaled, top_p, top_k)), alternatives


def _unpacked(bits: Tensor, columns: int) -> Tensor:
    """Bool ``[rows, columns]``."""
    places = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits[:, :, None] & places).bool().view(bits.shape[0], -1)[:, :columns]


def score_whole(
    hidden: Tensor, weight: Tensor, banned: Tensor, target: Tensor, count: int, max_num_logits: int
) -> tuple[Tensor, Alternatives]:
    """The float32 log probability ``[rows]`` of ``target`` int64 ``[rows]``, and the ``count`` most likely
    tokens of each row. Where the target is the likeliest, both say exactly the same of it.

    Args:
        hidden: ``[rows, d_model]``, at least one row. weight, banned, max_num_logits: see ``choose_whole``.
    """
    logprobs, alternatives = [], []
    for start in range(0, hidden.shape[0], max_num_logits):
        part = slice(start, min(start + max_num_logits, hidden.shape[0]))
        logits = float32_logits(hidden[part], weight)
        logits[:, banned] = -torch.inf
        own = logits.gather(1, target[part, None]) - logits.logsumexp(dim=1, keepdim=True)
        logprobs.append(own[:, 0])
        alternatives.append(_alternatives(logits, count))
    return torch.cat(logprobs), Alternatives.joined(alternatives)


def _alternatives(logits: Tensor, count: int) -> Alternatives:
    best, token = logits.topk(min(count, logits.shape[1]), dim=1)
    return Alternatives(token, best - logits.logsumexp(dim=1, keepdim=True) if count else best)


def keep_likeliest(scaled: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Exact top-k, then top-p over what is left, of ``scaled`` [rows, vocabulary]: other tokens become
    ``-inf``. The most likely token always stays."""
    ordered, order = scaled.sort(dim=1, descending=True, stable=True)
    rank = torch.arange(scaled.shape[1], device=scaled.device)
    beyond_k = (top_k[:, None] > 0) & (rank >= top_k[:, None])
    ordered = ordered.masked_fill(beyond_k, -torch.inf)
    before = ordered.softmax(dim=1).cumsum(dim=1).roll(1, dims=1)
    before[:, 0] = 0.0
    # A row that keeps everything must not lose its tail to a sum rounded up to 1.
    beyond_p = (top_p[:, None] < 1) & (before >= top_p[:, None]) & (rank > 0)
    ordered = ordered.masked_fill(beyond_p, -torch.inf)
    return torch.empty_like(scaled).scatter_(1, order, ordered)
