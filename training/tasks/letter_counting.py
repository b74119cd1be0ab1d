"""How often a letter occurs in a span of text: reasoning-gym's letter_counting."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from dllm_server.evaluation.words import Words

from training.tasks.example import Example, Sampler

MIN_WORDS, MAX_WORDS = 5, 10

_QUESTION = re.compile(r'How many times does the letter "(.)" appear in the text: "(.*)"\?')


def make(letter: str, span: Sequence[str]) -> Example:
    """`letter` in lower case, counted in either case."""
    count = sum(word.lower().count(letter) for word in span)
    text = " ".join(span)
    return Example(f'How many times does the letter "{letter}" appear in the text: "{text}"?', str(count))


def parse(question: str) -> tuple[str, list[str]]:
    """The arguments `make` was given. Raises ValueError on any other text."""
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(f"not a letter_counting question: {question[:60]!r}")
    return match[1], match[2].split(" ")


def sampler(words: Words) -> Sampler:
    """Spans of the story, and as many of shuffled words: the story alone could be learned by heart."""

    def sample(rng: random.Random) -> Example:
        length = rng.randint(MIN_WORDS, MAX_WORDS)
        if rng.random() < 0.5:
            start = rng.randint(0, len(words.running) - length)
            span: Sequence[str] = words.running[start : start + length]
        else:
            span = rng.choices(words.running, k=length)
        return make(rng.choice(sorted(set("".join(span).lower()))), span)

    return sample
