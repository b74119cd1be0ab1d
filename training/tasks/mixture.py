"""How often each family is drawn, and when."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from dllm_server.evaluation.reworded import DRAWINGS, reword
from dllm_server.evaluation.wording import Wording
from dllm_server.evaluation.words import Words

from training.tasks import (
    chain_sum,
    json_fields,
    letter_counting,
    number_filtering,
    number_sorting,
    recall,
    small_talk,
    spell_backward,
    spiral_matrix,
    tool_calls,
    word_sequence_reversal,
    word_sorting,
)
from training.tasks.example import Example, Sampler

SHARES: Mapping[str, float] = {
    "chain_sum": 0.15,
    "number_sorting": 0.11,
    "word_sorting": 0.16,
    "spell_backward": 0.04,
    "letter_counting": 0.15,
    "word_sequence_reversal": 0.05,
    "number_filtering": 0.125,
    "spiral_matrix": 0.03,
    "recall": 0.07,
    "small_talk": 0.015,
    "json_fields": 0.05,
    "tool_calls": 0.05,
}
FAMILIES = tuple(SHARES)
REWORDED_SHARE = 0.6  # of the examples of a family that reasoning-gym words in one way
REWORDED_RECALL_SHARE = 0.4  # its lists are short

EARLY_UNTIL = 0.3  # part of a training from scratch in which recall has short lists and the share below
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
    """The mixture before `until` and the one from there on."""

    early: Mixture
    whole: Mixture
    until: float

    def at(self, progress: float) -> Mixture:
        """`progress` is the part of training done, 0 to 1."""
        return self.early if progress < self.until else self.whole


def make_curriculum(
    words: Words, held_out: frozenset[str] = frozenset(), until: float = EARLY_UNTIL
) -> Curriculum:
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
        "json_fields": json_fields.sample,
        "tool_calls": tool_calls.sampler(small_talk.sampler(words)),
    }
    early = samplers | {"recall": recall.sample_short}
    samplers, early = _reworded(samplers, words), _reworded(early, words)
    return Curriculum(_mixture(early, early_shares(), held_out), _mixture(samplers, SHARES, held_out), until)


def _reworded(samplers: Mapping[str, Sampler], words: Words) -> dict[str, Sampler]:
    """Samplers that word a part of the questions as people do."""

    def mixed(family: str, original: Sampler) -> Sampler:
        share = REWORDED_RECALL_SHARE if family == "recall" else REWORDED_SHARE

        def sample(rng: random.Random) -> Example:
            if rng.random() >= share:
                return original(rng)
            asked = reword(rng, family, words, Wording.TRAINED)
            return Example(asked.question, asked.answer)

        return sample

    return {name: mixed(name, one) if name in DRAWINGS else one for name, one in samplers.items()}


def early_shares() -> dict[str, float]:
    """SHARES with recall at EARLY_RECALL_SHARE, taken from the others in proportion."""
    left = (1 - EARLY_RECALL_SHARE) / (1 - SHARES["recall"])
    return {name: share * left for name, share in SHARES.items()} | {"recall": EARLY_RECALL_SHARE}


def _mixture(
    samplers: Mapping[str, Sampler], shares: Mapping[str, float], held_out: frozenset[str]
) -> Mixture:
    cumulative = tuple(accumulate(shares[name] for name in FAMILIES))
    return Mixture(tuple(samplers[name] for name in FAMILIES), cumulative, held_out)
