"""Numbers on one side of a bound, in their order: reasoning-gym's number_filtering."""

from __future__ import annotations

import random
import re
from ast import literal_eval
from collections.abc import Sequence

from training.tasks.example import Example

MIN_NUMBERS, MAX_NUMBERS = 3, 6
MAX_DECIMALS = 2
LIMIT = 100.0

_QUESTION = re.compile(
    r"(Keep|Remove) all numbers (larger|smaller) than (\S+) in this list: (\[.*\])"
    r"\nReturn the new list in the same format\."
)


def make(verb: str, relation: str, bound: str, numbers: Sequence[str]) -> Example:
    """`verb` is Keep or Remove, `relation` larger or smaller; numbers are decimal literals."""
    limit = float(bound)
    matches = [float(n) > limit if relation == "larger" else float(n) < limit for n in numbers]
    kept = [n for n, match in zip(numbers, matches, strict=True) if match == (verb == "Keep")]
    question = (
        f"{verb} all numbers {relation} than {bound} in this list: {list(numbers)}\n"
        "Return the new list in the same format."
    )
    return Example(question, str(kept))


def parse(question: str) -> tuple[str, str, str, list[str]]:
    """The arguments `make` was given. Raises ValueError on any other text."""
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(f"not a number_filtering question: {question[:60]!r}")
    return match[1], match[2], match[3], literal_eval(match[4])


def sample(rng: random.Random) -> Example:
    """As reasoning-gym draws it; a list that repeats a value is drawn again."""
    while True:
        numbers = [
            f"{rng.uniform(-LIMIT, LIMIT):.{rng.randint(0, MAX_DECIMALS)}f}"
            for _ in range(rng.randint(MIN_NUMBERS, MAX_NUMBERS))
        ]
        values = [float(number) for number in numbers]
        if len(set(values)) == len(values):
            break
    bound = f"{rng.uniform(min(values), max(values)):.{rng.randint(0, MAX_DECIMALS)}f}"
    return make(rng.choice(("Keep", "Remove")), rng.choice(("larger", "smaller")), bound, numbers)
