"""Projection to the vocabulary and choice of a token, a bounded number of logits rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.noise import gumbel

_HOTTEST = 1e30  # an infinite temperature would turn a banned token's -inf into a NaN


@dataclass(frozen=True, slots=True)
class Sampling:
    """Per-row sampling, each ``[rows]``: temperature float32 (0 is greedy), noise keys int64, top_p float32,
    top_k int64 (0 is off).

    ``is_filtered`` says whether any row uses top_p or top_k; without it they are not read.
    """

    temperature: Tensor
    keys: Tensor
    top_p: Tensor
    top_k: Tensor
    is_filtered: bool

    def rows(self, start: int, end: int) -> Sampling:
        part = slice(start, end)
        return Sampling(
            self.temperature[part], self.keys[part], self.top_p[part], self.top_k[part], self.is_filtered
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """What a row chose, each ``[rows]``: token int64; float32 under the clean logits: its probability, the
    margin between the two most likely tokens, and the entropy in nats."""

    token: Tensor
    probability: Tensor
    margin: Tensor
    entropy: Tensor


def lm_head_choose(
    hidden: Tensor, weight: Tensor, banned: Tensor, sampling: Sampling | None, max_num_logits: int
) -> Choice:
    """Choose one token a row; at most ``max_num_logits`` rows of logits exist at a time.

    Confidence is taken from the clean logits in float32, whatever the temperature (the noise only picks the
    token).

    Args:
        hidden: ``[rows, d_model]`` after the final norm.
        weight: ``[vocabulary, d_model]``.
        banned: int64 ids that are never chosen and take no probability.
        sampling: None when every row is greedy.
    """
    chunks = []
    for start in range(0, hidden.shape[0], max_num_logits):
        end = min(start + max_num_logits, hidden.shape[0])
        logits = float32_logits(hidden[start:end], weight)
        logits[:, banned] = -torch.inf
        chunks.append(_choose(logits, sampling.rows(start, end) if sampling is not None else None))
    if len(chunks) == 1:
        return chunks[0]
    if not chunks:
        empty = hidden.new_empty(0, dtype=torch.float32)
        return Choice(empty.long(), empty, empty, empty)
    return Choice(
        torch.cat([c.token for c in chunks]),
        torch.cat([c.probability for c in chunks]),
        torch.cat([c.margin for c in chunks]),
        torch.cat([c.entropy for c in chunks]),
    )


def float32_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """``hidden @ weight.T`` accumulated and kept in float32: rounding logits to bfloat16 changes argmaxes."""
    if hidden.dtype == torch.float32:
        return F.linear(hidden, weight)
    if hidden.is_cuda:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return F.linear(hidden.float(), weight.float())


def _choose(logits: Tensor, sampling: Sampling | None) -> Choice:
    """``logits`` [rows, vocabulary] are consumed; one more tensor of their size lives beside them."""
    best, index = logits.topk(2, dim=1)
    shifted = logits.sub_(best[:, :1])
    token = index[:, 0] if sampling is None else _sample(shifted, index[:, 0], sampling)
    weights = shifted.exp()
    total = weights.sum(dim=1)
    finite = shifted.clamp_min_(-1e30)  # banned ids: 0 times this is 0
    entropy = total.log() - torch.bmm(weights[:, None], finite[:, :, None])[:, 0, 0] / total
    probability = weights.gather(1, token[:, None])[:, 0] / total
    margin = (1.0 - weights.gather(1, index[:, 1:])[:, 0]) / total
    return Choice(token, probability, margin, entropy)


def _sample(shifted: Tensor, greedy: Tensor, sampling: Sampling) -> Tensor:
    """``shifted`` are logits less their row's maximum."""
    is_warm = sampling.temperature > 0
    temperature = torch.where(is_warm, sampling.temperature.clamp_max(_HOTTEST), 1.0)
    scaled = shifted / temperature[:, None]  # at most 0, so that a tiny temperature overflows to -inf only
    if sampling.is_filtered:
        scaled = _filter(scaled, sampling.top_p, sampling.top_k)
    noisy = scaled + gumbel(sampling.keys, shifted.shape[1])
    return torch.where(is_warm, noisy.argmax(dim=1), greedy)


def _filter(scaled: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Exact top-k, then top-p over what is left; the most likely token always stays."""
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
