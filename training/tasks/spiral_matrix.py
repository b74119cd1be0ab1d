"""A small square matrix read clockwise from outside in: reasoning-gym's spiral_matrix."""

from __future__ import annotations

import random
from collections.abc import Sequence

from dllm_server.evaluation.reworded import spiral

from training.tasks.example import Example

MIN_SIDE, MAX_SIDE = 2, 4

_PREFIX = """Given a matrix, your job is to generate a list of elements in spiral order, \
starting from the top-left element.

The spiral order is clockwise, starting from the top-left corner. More precisely:
- Start from the top-left corner and move right along the top row.
- Move down along the right column.
- Move left along the bottom row.
- Move up along the left column.
- Repeat the steps for the inner elements of the matrix until every entry is visited.

Hint: Think of peeling the matrix layer by layer from the outside inward. \
Each layer forms a rectangular frame, \
and you traverse each frame clockwise starting from its top-left corner.

Your output should be a space-separated list of integers, e.g. 1 2 3 4 5 6

For the matrix below, what is the list of elements in spiral order?
"""


def make(matrix: Sequence[Sequence[str]]) -> Example:
    """A square matrix of digits, row by row."""
    listed = "\n".join(" ".join(row) for row in matrix)
    return Example(f"{_PREFIX}{listed}\n", " ".join(spiral(matrix)))


def parse(question: str) -> list[list[str]]:
    """The matrix `make` was given."""
    return [row.split(" ") for row in question.removeprefix(_PREFIX).rstrip("\n").split("\n")]


def sample(rng: random.Random) -> Example:
    """Digits drawn uniformly."""
    side = rng.randint(MIN_SIDE, MAX_SIDE)
    return make([[str(rng.randint(0, 9)) for _ in range(side)] for _ in range(side)])
