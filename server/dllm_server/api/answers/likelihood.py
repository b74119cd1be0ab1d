"""How likely a text is: which forward passes say so, and the estimate that they make. Pure.

The text is scored block by block from its start on, each block given everything before it, with everything
after it masked. In a block of L tokens each of ``likelihood_samples`` passes masks l of them, l uniform in
1 ... L and the set uniform among those of l, and their log probabilities count L / l times: the mean over the
passes estimates a lower bound of the block's log likelihood (Nie et al. 2025, Large Language Diffusion
Models). A block of one token needs one pass and is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import fsum
from random import Random

from dllm_server.settings import DiffusionSettings

LIKELIHOOD_SEED = 0  # where a request names none: the same text has the same estimate

Ranked = Sequence[tuple[int, float]]  # tokens and their log probabilities, the likeliest first


@dataclass(frozen=True, slots=True)
class MaskedPass:
    """A forward pass over the text with the positions ``scored`` masked, and all from ``masked_from`` on;
    each of its log probabilities has ``weight`` in the estimate. ``number`` is its place in the plan."""

    number: int
    scored: tuple[int, ...]
    masked_from: int
    weight: float


@dataclass(frozen=True, slots=True)
class LikelihoodPlan:
    """How a text of ``length`` tokens is scored from position ``start`` on, in blocks of ``block_length``."""

    length: int
    start: int
    block_length: int
    samples: int
    seed: int

    @classmethod
    def of(cls, length: int, diffusion: DiffusionSettings, seed: int | None) -> LikelihoodPlan:
        """The first token is always given."""
        start = diffusion.likelihood_start
        start = min(max(start if start > 0 else length + start, 1), length)
        seed = LIKELIHOOD_SEED if seed is None else seed
        return cls(length, start, diffusion.likelihood_block_length, diffusion.likelihood_samples, seed)

    def passes(self) -> Iterator[MaskedPass]:
        """In order, each drawn when it is asked for."""
        number = 0
        for first in range(self.start, self.length, self.block_length):
            end = min(first + self.block_length, self.length)
            for scored, weight in self._block(first, end):
                yield MaskedPass(number, scored, end, weight)
                number += 1

    def _block(self, first: int, end: int) -> Iterator[tuple[tuple[int, ...], float]]:
        size = end - first
        if size == 1:
            yield (first,), 1.0
            return
        dice = Random(f"{self.seed}:{first}")
        for _ in range(self.samples):
            masked = dice.randint(1, size)
            yield tuple(sorted(dice.sample(range(first, end), masked))), size / masked / self.samples


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token's share of the estimate; the shares of whole blocks add up to their bound. ``likeliest`` are
    those of the pass that masked most of the block, the first of several."""

    logprob: float
    likeliest: Ranked


@dataclass(slots=True)
class Estimate:
    """Gathers the passes' results, in any order."""

    plan: LikelihoodPlan
    _terms: dict[int, list[float]] = field(default_factory=dict)
    _likeliest: dict[int, tuple[int, int, Ranked]] = field(default_factory=dict)

    def add(self, one: MaskedPass, logprobs: Sequence[float], likeliest: Sequence[Ranked]) -> None:
        """For each scored position its token's log probability; ``likeliest`` is empty if not asked for."""
        for index, position in enumerate(one.scored):
            self._terms.setdefault(position, []).append(one.weight * logprobs[index])
            rank = len(one.scored), -one.number
            if likeliest and rank > self._likeliest.get(position, (0, 0, ()))[:2]:
                self._likeliest[position] = *rank, likeliest[index]

    def scores(self) -> list[TokenScore | None]:
        """By position; None for the tokens that are given. One that no pass has masked has a share of 0."""
        return [
            None
            if position < self.plan.start
            else TokenScore(fsum(self._terms.get(position, ())), self._likeliest.get(position, (0, 0, ()))[2])
            for position in range(self.plan.length)
        ]
