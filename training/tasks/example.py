"""What every task family produces."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised turn: `tools` as OpenAI's API takes them, `exchange` what has followed the question."""

    question: str
    answer: str
    tools: tuple[dict[str, Any], ...] = ()
    exchange: str = ""


Sampler = Callable[[random.Random], Example]
