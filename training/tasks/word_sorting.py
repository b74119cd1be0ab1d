"""Words in ASCII order: reasoning-gym's word_sorting."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dllm_server.evaluation.reworded import draw_words
from dllm_server.evaluation.words import Words

from training.tasks.example import Example, Sampler

MIN_WORDS, MAX_WORDS = 3, 5
MIN_LETTERS, MAX_LETTERS = 3, 10

_PREFIX = (
    "Your task is to sort words in ascending or descending order using ASCII/Unicode ordering.\n\n"
    "Your output should be a comma-separated list of words, e.g. word_1, word_2, word_3\n\n"
    "Now, sort these words in {direction} order (using ASCII/Unicode ordering) "
    "and return them as a comma-separated list: "
)


def make(direction: str, words: Sequence[str]) -> Example:
    """`direction` is ascending or descending."""
    ordered = sorted(words, reverse=direction == "descending")
    return Example(f"{_PREFIX.format(direction=direction)}{', '.join(words)}\n", ", ".join(ordered))


def parse(question: str) -> tuple[str, list[str]]:
    """The arguments `make` was given."""
    direction = "ascending" if question.startswith(_PREFIX.format(direction="ascending")) else "descending"
    return direction, question.removeprefix(_PREFIX.format(direction=direction)).rstrip("\n").split(", ")


def sampler(words: Words) -> Sampler:
    """Draws from the story's distinct words."""
    eligible = [word for word in words.story if MIN_LETTERS <= len(word) <= MAX_LETTERS]

    def sample(rng: random.Random) -> Example:
        if rng.random() < 0.2:  # words that the story lacks
            unknown = draw_words(rng, words, rng.randint(MIN_WORDS, MAX_WORDS))
            return make(rng.choice(("ascending", "descending")), unknown)
        chosen = rng.sample(eligible, rng.randint(MIN_WORDS, MAX_WORDS))
        if rng.random() < 0.3:  # words that share a beginning are rare by chance and the hardest to order
            first = rng.choice(chosen)[:2]
            alike = [word for word in rng.sample(eligible, 200) if word.startswith(first)][:2]
            chosen = list(dict.fromkeys([*alike, *chosen]))[: max(len(chosen), MIN_WORDS)]
            rng.shuffle(chosen)
        return make(rng.choice(("ascending", "descending")), chosen)

    return sample
