"""Key-value recall: read values back out of a long list of entries. No dependency but the standard
library."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from string import ascii_lowercase, digits

MAX_ENTRIES = 140
MAX_ASKED = 8
ENTRY_TOKENS = 7

_OPENING = "Remember these entries: "
_ONE = "\nWhat is the value of "
_SEVERAL = "\nWhat are the values of "
_QUESTION = re.compile(
    rf"{re.escape(_OPENING)}(?P<entries>.*)\.(?:{re.escape(_ONE)}|{re.escape(_SEVERAL)})(?P<asked>[a-z, ]+)\?"
)


@dataclass(frozen=True, slots=True)
class Recall:
    """`entries` in the order they are listed; `asked` are keys of it, in the order they are asked for."""

    entries: tuple[tuple[str, str], ...]
    asked: tuple[str, ...]

    @property
    def question(self) -> str:
        listed = "; ".join(f"{key}={value}" for key, value in self.entries)
        opening = _ONE if len(self.asked) == 1 else _SEVERAL
        return f"{_OPENING}{listed}.{opening}{', '.join(self.asked)}?"

    @property
    def answer(self) -> str:
        values = dict(self.entries)
        return ", ".join(values[key] for key in self.asked)


def make_recall(rng: random.Random, *, entries: int, asked: int) -> Recall:
    """`entries` distinct two-letter keys with three-digit values, `asked` distinct keys among them."""
    if not 1 <= asked <= min(entries, MAX_ASKED):
        raise ValueError(f"asked {asked} is outside 1..{min(entries, MAX_ASKED)}: ask for fewer keys")
    if entries > MAX_ENTRIES:
        raise ValueError(f"entries {entries} exceeds {MAX_ENTRIES}: list fewer")
    pairs: dict[str, str] = {}
    while len(pairs) < entries:
        pairs["".join(rng.choices(ascii_lowercase, k=2))] = "".join(rng.choices(digits, k=3))
    return Recall(tuple(pairs.items()), tuple(rng.sample(list(pairs), asked)))


def parse_recall(question: str) -> Recall:
    """The inverse of `Recall.question`. Raises ValueError on any other text."""
    match = _QUESTION.fullmatch(question)
    if match is None:
        raise ValueError(f"not a recall question: {question[:60]!r}")
    entries = tuple(
        (key, value) for key, value in (entry.split("=", 1) for entry in match["entries"].split("; "))
    )
    return Recall(entries, tuple(match["asked"].split(", ")))
