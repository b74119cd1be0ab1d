"""A list of words from last to first: reasoning-gym's word_sequence_reversal."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dllm_server.evaluation.words import Words

from training.tasks.example import Example, Sampler

MIN_WORDS, MAX_WORDS = 3, 6

_PREFIX = (
    "Solve the following problem.\n\n"
    "Provide you answer as a comma-separated list of words with a space after the comma.\n\n"
    "Reverse this list of words: "
)


def make(words: Sequence[str]) -> Example:
    """Words in the order they are listed."""
    return Example(f"{_PREFIX}{', '.join(words)}\n", ", ".join(reversed(words)))


def parse(question: str) -> list[str]:
    """The words `make` was given."""
    return question.removeprefix(_PREFIX).rstrip("\n").split(", ")


def sampler(words: Words) -> Sampler:
    """Draws from the story's running words."""

    def sample(rng: random.Random) -> Example:
        return make(rng.sample(words.running, rng.randint(MIN_WORDS, MAX_WORDS)))

    return sample
