"""How often each family is drawn."""

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
    "chain_sum": 0.19,
    "number_sorting": 0.13,
    "word_sorting": 0.17,
    "spell_backward": 0.035,
    "letter_counting": 0.16,
    "word_sequence_reversal": 0.05,
    "number_filtering": 0.14,
    "spiral_matrix": 0.03,
    "recall": 0.08,
    "small_talk": 0.015,
}


@dataclass(frozen=True, slots=True)
class Mixture:
    """Draws examples; questions in `held_out` are drawn again."""

    samplers: tuple[Sampler, ...]
    cumulative: tuple[float, ...]
    held_out: frozenset[str]

    def sample(self, rng: random.Random) -> Example:
        """One example of a family chosen by its share."""
        (draw,) = rng.choices(self.samplers, cum_weights=self.cumulative)
        while True:
            example = draw(rng)
            if example.question not in self.held_out:
                return example


def make_mixture(words: Words, held_out: frozenset[str] = frozenset()) -> Mixture:
    """The training mixture over `words`."""
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
    cumulative = tuple(accumulate(SHARES[name] for name in samplers))
    return Mixture(tuple(samplers.values()), cumulative, held_out)
