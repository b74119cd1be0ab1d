"""What every task family produces."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised turn."""

    question: str
    answer: str


Sampler = Callable[[random.Random], Example]
