"""What a step brings back to the host, before and after the device has got there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from dllm_kernels.commit import NOT_FINITE
from dllm_kernels.layout import IntArray
from dllm_kernels.whole_logits import Alternatives
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class NamedTokens:
    """Some tokens of some rows, int32 ``[rows, count]``, and their float32 log probabilities, ``-inf`` for
    those that are banned. ``place`` int64 ``[rows]`` says which row each is."""

    place: IntArray
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step committed, on the host, each ``[requests, block]`` in the batch's order.

    ``tokens`` int32 is -1 where nothing was committed, and ``NOT_FINITE`` where a request computed no
    number and must end; ``logprobs`` float32 is the log probability of the token that a row chose, committed
    or not, under the clean logits, NaN where there is no row. ``alternatives``, the likeliest first and
    placed by cell of the ``[requests, block]`` grid, are there where any request asks for them; ``scores``,
    each target before the likeliest and placed by request, where any request scores.
    """

    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    alternatives: NamedTokens | None
    scores: NamedTokens | None


@dataclass(frozen=True, slots=True)
class GuidedTokens:
    """What a step commits of the requests with a grammar, each ``[tokens]``: int64 ``cell`` of the
    ``[requests, block]`` grid and ``canvas`` index, int32 ``token``, or ``NOT_FINITE``, and its float32 log
    probability among the tokens that were allowed. ``named`` are the likeliest of these, placed by cell."""

    cell: IntArray
    canvas: IntArray
    token: NDArray[np.int32]
    logprob: NDArray[np.float32]
    named: NamedTokens | None


class PendingTokens:
    """``NamedTokens`` on their way, in one copy. Whatever can fail does so here, before the step commits."""

    def __init__(self, named: Alternatives, place: IntArray) -> None:
        tokens, bits = named.token.to(torch.int32), named.logprob.view(torch.int32)
        host = torch.empty((2, *tokens.shape), dtype=torch.int32, pin_memory=tokens.is_cuda)
        host.copy_(torch.stack((tokens, bits)), non_blocking=True)
        self._host, self._place = host.numpy(), place

    @classmethod
    def of(cls, named: Alternatives | None, place: IntArray) -> Self | None:
        return None if named is None else cls(named, place)

    def result(self) -> NamedTokens:
        """Once the device is there."""
        tokens, bits = self._host
        return NamedTokens(self._place, tokens, bits.view(np.float32))


class PendingStep:
    """A step that the device runs or has run; ``host`` int32 ``[2, requests, block]`` is what it writes,
    beside named tokens. Made before the step commits: nothing may fail once it has."""

    def __init__(
        self,
        host: Tensor,
        *,
        alternatives: PendingTokens | None,
        scores: PendingTokens | None,
        guided: GuidedTokens | None,
        done: torch.cuda.Event | None,
    ) -> None:
        self._host, self._alternatives, self._scores, self._done = host.numpy(), alternatives, scores, done
        self._guided = guided

    def guided_tokens(self) -> dict[int, int | None]:
        """How many tokens the step commits of each request with a grammar, by its place in the batch: known
        before the device is there. None where it ends because it computed no number."""
        if (guided := self._guided) is None:
            return {}
        request, count = np.unique(guided.cell // self._host.shape[2], return_counts=True)
        found: dict[int, int | None] = dict(zip(request.tolist(), count.tolist(), strict=True))
        broken = guided.cell[guided.token == NOT_FINITE] // self._host.shape[2]
        return found | dict.fromkeys(broken.tolist())

    def result(self) -> StepResult:
        """Waits for the device."""
        if self._done is not None:
            self._done.synchronize()
        tokens, logprobs = self._host[0], self._host[1].view(np.float32)
        alternatives = None if self._alternatives is None else self._alternatives.result()
        if (guided := self._guided) is not None:
            tokens.reshape(-1)[guided.cell] = guided.token
            logprobs.reshape(-1)[guided.cell] = guided.logprob
            alternatives = _joined(alternatives, guided.named)
        return StepResult(
            tokens,
            logprobs,
            alternatives,
            None if self._scores is None else self._scores.result(),
        )


def _joined(some: NamedTokens | None, others: NamedTokens | None) -> NamedTokens | None:
    if some is None or others is None:
        return some or others
    return NamedTokens(
        np.concatenate((some.place, others.place)),
        np.concatenate((some.tokens, others.tokens)),
        np.concatenate((some.logprobs, others.logprobs)),
    )
