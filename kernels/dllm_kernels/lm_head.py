"""Projection to the vocabulary and choice of a token, a bounded number of logits rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.noise import gumbel

_HOTTEST = 1e30  # an infinite temperature would turn a banned token's -inf into a NaN


@dataclass(frozen=True, slots=True)
class Sampling:
    """Per-row sampling, each ``[rows]``: temperature float32 (0 is greedy), noise keys int64."""

    temperature: Tensor
    keys: Tensor

    def rows(self, start: int, end: int) -> Sampling:
        return Sampling(self.temperature[start:end], self.keys[start:end])


@dataclass(frozen=True, slots=True)
class Choice:
    """What a row chose, each ``[rows]``: token int64; float32 under the clean logits: its probability, the
    margin between the two most likely tokens, and the entropy in nats."""

    token: Tensor
    probability: Tensor
    margin: Tensor
    entropy: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The rows of ``parts``, one after the other."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def of_no_rows(cls, device: torch.device) -> Self:
        empty = torch.empty(0, device=device)
        return cls(empty.long(), empty, empty, empty)

    def in_order(self, place: Tensor) -> Self:
        """Row i is row ``place[i]`` of this one."""
        return type(self)(*(getattr(self, field.name)[place] for field in fields(self)))


def lm_head_choose(
    hidden: Tensor, weight: Tensor, banned: Tensor, sampling: Sampling | None, max_num_logits: int
) -> Choice:
    """Choose one token a row; at most ``max_num_logits`` rows of logits exist at a time.

    Rows that ask for more than a temperature are ``whole_logits.choose_whole``'s. Confidence is taken from
    the clean logits in float32, whatever the temperature (the noise only picks the token).

    Args:
        hidden: ``[rows, d_model]`` after the final norm.
        weight: ``[vocabulary, d_model]``.
        banned: int64 ids that are never chosen and take no probability.
        sampling: None when every row is greedy.
    """
    chunks = [Choice.of_no_rows(hidden.device)] if not hidden.shape[0] else []
    for start in range(0, hidden.shape[0], max_num_logits):
        end = min(start + max_num_logits, hidden.shape[0])
        logits = float32_logits(hidden[start:end], weight)
        logits[:, banned] = -torch.inf
        chunks.append(choose_tokens(logits, sampling.rows(start, end) if sampling is not None else None))
    return Choice.joined(chunks)


def float32_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """``hidden @ weight.T`` accumulated and kept in float32: rounding logits to bfloat16 changes argmaxes."""
    if hidden.dtype == torch.float32:
        return F.linear(hidden, weight)
    if hidden.is_cuda:
        return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
    return F.linear(hidden.float(), weight.float())


def choose_tokens(
    logits: Tensor, sampling: Sampling | None, keep: Callable[[Tensor], Tensor] | None = None
) -> Choice:
    """``logits`` [rows, vocabulary] are consumed; one more tensor of their size lives beside them.

    Args:
        keep: turns logits over the temperature into those of the tokens that may be drawn.
    """
    best, index = logits.topk(2, dim=1)
    shifted = logits.sub_(best[:, :1])
    token = index[:, 0] if sampling is None else _sample(shifted, index[:, 0], sampling, keep)
    weights = shifted.exp()
    total = weights.sum(dim=1)
    finite = shifted.clamp_min_(-1e30)  # banned ids: 0 times this is 0
    entropy = total.log() - torch.bmm(weights[:, None], finite[:, :, None])[:, 0, 0] / total
    probability = weights.gather(1, token[:, None])[:, 0] / total
    margin = (1.0 - weights.gather(1, index[:, 1:])[:, 0]) / total
    return Choice(token, probability, margin, entropy)


def _sample(
    shifted: Tensor, greedy: Tensor, sampling: Sampling, keep: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """``shifted`` are logits less their row's maximum."""
    is_warm = sampling.temperature > 0
    temperature = torch.where(is_warm, sampling.temperature.clamp_max(_HOTTEST), 1.0)
    scaled = shifted / temperature[:, None]  # at most 0, so that a tiny temperature overflows to -inf only
    if keep is not None:
        scaled = keep(scaled)
    noisy = scaled + gumbel(sampling.keys, shifted.shape[1])
    return torch.where(is_warm, noisy.argmax(dim=1), greedy)
