"""Calls of tools, answers to their results, and questions that no tool answers."""

from __future__ import annotations

import random

from dllm_server.evaluation.calls import beside, invented_tool, make_call
from dllm_server.evaluation.spelling import invented
from dllm_server.evaluation.wording import Wording

from training.tasks.example import Example, Sampler
from training.tokenizer import render_exchange

MOST_TOOLS = 3
RESULT_ANSWER = "The result is "


def sampler(other: Sampler) -> Sampler:
    """Mostly a call of one of one to three tools; else its result told, or a question of `other`."""

    def sample(rng: random.Random) -> Example:
        chance = rng.random()
        if chance < 0.08:
            plain = other(rng)
            return Example(plain.question, plain.answer, beside(rng, invented_tool(rng)))
        made = make_call(rng, Wording.TRAINED, 2 if rng.random() < 0.8 else MOST_TOOLS)
        if chance < 0.8:
            return Example(made.question, made.answer, made.tools)
        result = _result(rng)
        return Example(
            made.question, RESULT_ANSWER + result, made.tools, render_exchange(made.answer, result)
        )

    return sample


def _result(rng: random.Random) -> str:
    """What a tool may say: numbers, words, small objects."""
    number, word = str(rng.randint(-50, 2000)), invented(rng)
    match rng.randrange(4):
        case 0:
            return number
        case 1:
            return " ".join(invented(rng) for _ in range(rng.randint(1, 4)))
        case 2:
            return f'{{"{word}": {number}}}'
        case _:
            return f'{{"{word}": "{invented(rng)}", "{invented(rng)}": {number}}}'
