"""A step's examples as padded arrays: a pure function of the seed, its number and how many there are."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.tasks import small_talk
from training.tasks.example import Example
from training.tasks.mixture import Curriculum
from training.tokenizer import ASSISTANT, END_OF_TEXT, END_OF_TURN, USER, render_prompt, token_id

BLOCK_TOKENS = 32
MAX_BLOCKS = 4
PADDED_TO = 16
MICRO_BATCH_COST = 12_000  # tokens that a forward and backward could have taken instead
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.")


@dataclass(frozen=True, slots=True)
class BatchArrays:
    """`objective.MicroBatch` in numpy: `rows` holds first, block_start, answer_end and family, [4, batch]."""

    tokens: NDArray[np.int16]
    rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sequence:
    """A prompt, its canvas and the block that is trained."""

    prompt: list[int]
    canvas: list[int]
    block: int
    answer_tokens: int
    family: int

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.canvas)


@dataclass(frozen=True, slots=True)
class Batcher:
    """Draws `sequences` examples a step and packs them into micro-batches of at most `micro_tokens`."""

    curriculum: Curriculum
    tokenizer: Tokenizer
    sequences: int
    micro_tokens: int
    steps: int
    seed: int

    def step(self, index: int) -> list[BatchArrays]:
        """The micro-batches of step `index` of `steps`, each of rows of like length."""
        rng = random.Random(f"{self.seed}/{index}")
        mixture = self.curriculum.at(index / self.steps)
        families, examples = zip(*(mixture.sample(rng) for _ in range(self.sequences)), strict=True)
        prompts = self.tokenizer.encode_batch_fast([_prompt(rng, example) for example in examples])
        answers = self.tokenizer.encode_batch_fast([example.answer for example in examples])
        end = token_id(self.tokenizer, END_OF_TEXT)
        drawn = [
            _sequence(rng, family, p.ids, a.ids, end)
            for family, p, a in zip(families, prompts, answers, strict=True)
        ]
        drawn.sort(key=lambda sequence: sequence.length)
        return [_pack(group, end) for group in _groups(drawn, self.micro_tokens)]


def _prompt(rng: random.Random, example: Example) -> str:
    question = example.question
    if rng.random() < 0.1:
        question = question.strip()
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.05 else None
    prompt = render_prompt(question, system, example.tools, example.exchange)
    if not example.tools and rng.random() < 0.03:
        intent = rng.choice(small_talk.INTENTS)
        earlier = rng.choice(intent.questions)
        prompt = f"{USER}{earlier}{END_OF_TURN}{ASSISTANT}{intent.answer}{END_OF_TURN}{prompt}"
    return prompt


def _sequence(rng: random.Random, family: int, prompt: list[int], answer: list[int], end: int) -> Sequence:
    needed = len(answer) // BLOCK_TOKENS + 1
    blocks = needed if rng.random() < 0.75 else min(needed + rng.randint(1, 3), max(MAX_BLOCKS, needed))
    block = rng.randrange(needed) if rng.random() < 0.93 else rng.randrange(blocks)
    canvas = answer + [end] * (blocks * BLOCK_TOKENS - len(answer))
    return Sequence(prompt, canvas, block, len(answer), family)


def _groups(drawn: list[Sequence], micro_tokens: int) -> list[list[Sequence]]:
    """Cuts sorted sequences where padding and the fixed cost of a micro-batch are least together."""
    widths = sorted({_padded(sequence.length) for sequence in drawn})
    ends = [sum(_padded(sequence.length) <= width for sequence in drawn) for width in widths]
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the first i widths, and where their last group begins
    for upper in range(1, len(widths) + 1):
        width = widths[upper - 1]
        choices = []
        for lower in range(upper):
            padded = (ends[upper - 1] - (ends[lower - 1] if lower else 0)) * width
            choices.append((best[lower][0] + padded + MICRO_BATCH_COST * -(-padded // micro_tokens), lower))
        best.append(min(choices))
    groups: list[list[Sequence]] = []
    upper = len(widths)
    while upper:
        lower = best[upper][1]
        members = drawn[ends[lower - 1] if lower else 0 : ends[upper - 1]]
        parts = -(-len(members) * widths[upper - 1] // micro_tokens)
        size = -(-len(members) // parts)
        groups += [members[at : at + size] for at in range(0, len(members), size)]
        upper = lower
    return groups


def _padded(length: int) -> int:
    return -(-length // PADDED_TO) * PADDED_TO


def _pack(group: list[Sequence], end: int) -> BatchArrays:
    length = _padded(group[-1].length)
    tokens = np.full((len(group), length), end, dtype=np.int16)
    rows = np.empty((4, len(group)), dtype=np.int32)
    for index, sequence in enumerate(group):
        first = length - sequence.length
        canvas_start = first + len(sequence.prompt)
        tokens[index, first:] = sequence.prompt + sequence.canvas
        block_start = canvas_start + sequence.block * BLOCK_TOKENS
        rows[:, index] = first, block_start, canvas_start + sequence.answer_tokens, sequence.family
    return BatchArrays(tokens, rows)
