"""Sums and differences of two or three numbers: reasoning-gym's chain_sum."""

from __future__ import annotations

import random
import re

from training.tasks.example import Example

MIN_TERMS, MAX_TERMS = 2, 3
MIN_DIGITS, MAX_DIGITS = 1, 3

_PREFIX = "State the final answer to the following arithmetic problem: "
_SUFFIX = " ="


def make(expression: str) -> Example:
    """`expression` is integers joined by ` + ` and ` - `."""
    terms = re.findall(r"(^|[+-] )(\d+)", expression)
    total = sum(-int(number) if sign.startswith("-") else int(number) for sign, number in terms)
    return Example(f"{_PREFIX}{expression}{_SUFFIX}", str(total))


def parse(question: str) -> str:
    """The expression `make` was given."""
    return question.removeprefix(_PREFIX).removesuffix(_SUFFIX)


def sample(rng: random.Random) -> Example:
    """As reasoning-gym draws it: one digit count for all terms."""
    digits = rng.randint(MIN_DIGITS, MAX_DIGITS)
    low = 0 if digits == 1 else 10 ** (digits - 1)
    high = 10**digits - 1
    expression = str(rng.randint(low, high))
    for _ in range(rng.randint(MIN_TERMS, MAX_TERMS) - 1):
        expression += f" {rng.choice('+-')} {rng.randint(low, high)}"
    return make(expression)
