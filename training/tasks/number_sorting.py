"""Numbers in ascending or descending order: reasoning-gym's number_sorting."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.tasks.example import Example

MIN_NUMBERS, MAX_NUMBERS = 3, 6
MAX_DECIMALS = 2
LIMIT = 100.0

_PREFIX = "Sort these numbers in {direction} order: "
_SUFFIX = (
    "\nPlease follow the instruction below:\n## 1. Let all your answers be a list of numbers. "
    "Instead of reporting your answer as -69, -13, 1, 7, 11, 43, 59, 61, use "
    "['-69', '-13', '1', '7', '11', '43', '59', '61'] instead\n"
    "## 2. Convert all numbers in the square brackets as strings. "
    "For example, ['-69', '-13', '1', '7', '11', '43', '59', '61']\n"
)


def make(direction: str, numbers: Sequence[str]) -> Example:
    """`direction` is ascending or descending; `numbers` are decimal literals."""
    ordered = sorted(numbers, key=float, reverse=direction == "descending")
    return Example(_PREFIX.format(direction=direction) + ", ".join(numbers) + _SUFFIX, str(ordered))


def parse(question: str) -> tuple[str, list[str]]:
    """The arguments `make` was given."""
    head, _, numbers = question.removesuffix(_SUFFIX).partition(" order: ")
    return head.removeprefix("Sort these numbers in "), numbers.split(", ")


def sample(rng: random.Random) -> Example:
    """As reasoning-gym draws it: every number with its own decimals, shown as a float."""
    numbers = [
        str(round(rng.uniform(-LIMIT, LIMIT), rng.randint(0, MAX_DECIMALS)))
        for _ in range(rng.randint(MIN_NUMBERS, MAX_NUMBERS))
    ]
    return make(rng.choice(("ascending", "descending")), numbers)
