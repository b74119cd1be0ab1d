"""How often each family is drawn, and when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from training.tasks import (
    chain_sum,
    letter_counting,
    number_filtering,
    number_sorting,
    recall,
    small_talk,
    spell_backward,
    spiral_matrix,
    word_sequence_reversal,
    word_sorting,
)
from training.tasks.example import Example, Sampler
from training.words import Words

SHARES: Mapping[str, float] = {
    "chain_sum": 0.185,
    "number_sorting": 0.13,
    "word_sorting": 0.17,
    "spell_backward": 0.035,
    "letter_counting": 0.16,
    "word_sequence_reversal": 0.05,
    "number_filtering": 0.14,
    "spiral_matrix": 0.03,
    "recall": 0.085,
    "small_talk": 0.015,
}
FAMILIES = tuple(SHARES)

EARLY_UNTIL = 0.3  # part of training in which recall has short lists and the share below
EARLY_RECALL_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Mixture:
    """Draws examples, a sampler a family in FAMILIES' order; questions in `held_out` are drawn again."""

    samplers: tuple[Sampler, ...]
    cumulative: tuple[float, ...]
    held_out: frozenset[str]

    def sample(self, rng: random.Random) -> tuple[int, Example]:
        """A family chosen by its share, as its index in FAMILIES, and one example of it."""
        (family,) = rng.choices(range(len(self.samplers)), cum_weights=self.cumulative)
        while True:
            example = self.samplers[family](rng)
            if example.question not in self.held_out:
                return family, example


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The mixture before EARLY_UNTIL and the one from there on."""

    early: Mixture
    whole: Mixture

    def at(self, progress: float) -> Mixture:
        """`progress` is the part of training done, 0 to 1."""
        return self.early if progress < EARLY_UNTIL else self.whole


def make_curriculum(words: Words, held_out: frozenset[str] = frozenset()) -> Curriculum:
    """The training mixtures over `words`."""
    samplers: dict[str, Sampler] = {
        "chain_sum": chain_sum.sample,
        "number_sorting": number_sorting.sample,
        "word_sorting": word_sorting.sampler(words),
        "spell_backward": spell_backward.sampler(words),
        "letter_counting": letter_counting.sampler(words),
        "word_sequence_reversal": word_sequence_reversal.sampler(words),
        "number_filtering": number_filtering.sample,
        "spiral_matrix": spiral_matrix.sample,
        "recall": recall.sample,
        "small_talk": small_talk.sampler(words),
    }
    early = samplers | {"recall": recall.sample_short}
    return Curriculum(_mixture(early, early_shares(), held_out), _mixture(samplers, SHARES, held_out))


def early_shares() -> dict[str, float]:
    """SHARES with recall at EARLY_RECALL_SHARE, taken from the others in proportion."""
    left = (1 - EARLY_RECALL_SHARE) / (1 - SHARES["recall"])
    return {name: share * left for name, share in SHARES.items()} | {"recall": EARLY_RECALL_SHARE}


def _mixture(
    samplers: Mapping[str, Sampler], shares: Mapping[str, float], held_out: frozenset[str]
) -> Mixture:
    cumulative = tuple(accumulate(shares[name] for name in FAMILIES))
    return Mixture(tuple(samplers[name] for name in FAMILIES), cumulative, held_out)
