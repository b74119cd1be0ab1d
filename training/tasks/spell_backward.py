"""A word's letters from last to first: reasoning-gym's spell_backward."""

from __future__ import annotations

import random

from dllm_server.evaluation.words import Words

from training.tasks.example import Example, Sampler

MIN_LETTERS, MAX_LETTERS = 3, 10

_PREFIX = "Spell this word backward (example: sun -> nus): "


def make(word: str) -> Example:
    """One word."""
    return Example(_PREFIX + word, word[::-1])


def parse(question: str) -> str:
    """The word `make` was given."""
    return question.removeprefix(_PREFIX)


def sampler(words: Words) -> Sampler:
    """Draws from the spelling list."""
    eligible = [word for word in words.listed if MIN_LETTERS <= len(word) <= MAX_LETTERS]

    def sample(rng: random.Random) -> Example:
        return make(rng.choice(eligible))

    return sample
