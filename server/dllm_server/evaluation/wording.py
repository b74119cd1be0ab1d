"""Ways to word a question: patterns that expand to many wordings, and how people write lists. No dependency
but the standard library."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Wording(StrEnum):
    """Which wordings of a family's questions."""

    ORIGINAL = "original"  # reasoning-gym's own; where a family has none, the trained ones
    TRAINED = "trained"
    HELD_OUT = "held-out"  # never trained


@dataclass(frozen=True, slots=True)
class Wordings:
    """Patterns by variant of the task. ``[a|b]`` is one of several texts, ``{name}`` a slot, a first ``~``
    marks a request that may be put politely. The held-out ones have neither brackets nor a mark."""

    trained: Mapping[str, Sequence[str]]
    held_out: Mapping[str, Sequence[str]]


_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"(\{\w+\})")
POLITE = (
    "Please ", "Please, ", "Can you ", "Could you ", "Could you please ", "Would you ", "I want you to ",
    "I would like you to ", "I need you to ", "Hi! ", "Hello, ", "Now ", "Help me: ", "Kindly ",
)  # fmt: skip
MARKS = (": ", ": ", ": ", ": ", ":\n", "\n", ":\n\n", " - ")  # between a request and what it is about
ENDINGS = ("", "", "", ".", ".", "!", " please", ", please", " Thanks!", "\n")


def expand(rng: random.Random, pattern: str) -> str:
    """One of the texts that ``pattern`` stands for, its slots and mark still in it."""
    while match := _CHOICE.search(pattern):
        pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]
    return pattern


def worded(
    rng: random.Random, wordings: Wordings, variant: str, slots: Mapping[str, str], wording: Wording
) -> str:
    """A question of a variant in one of its trained or of its held-out wordings."""
    if wording is Wording.HELD_OUT:
        return fill(rng.choice(wordings.held_out[variant]), slots)
    return written(rng, rng.choice(wordings.trained[variant]), slots)


def written(rng: random.Random, pattern: str, slots: Mapping[str, str]) -> str:
    """A question in a trained wording, in one of the ways people capitalise, ask politely and end it."""
    text = re.sub(" +", " ", expand(rng, pattern))
    is_request, text = text.startswith("~"), text.removeprefix("~")
    if is_request and rng.random() < 0.25:
        text = rng.choice(POLITE) + _uncapitalised(text)
    match rng.randrange(20):
        case 0:
            text = _in_case(text, str.upper)
        case 1 | 2 | 3 | 4 | 5:
            text = _in_case(text, str.lower)
        case 6 | 7 | 8:
            text = _uncapitalised(text)
        case _:
            pass
    if not text.endswith("}"):
        text = text.rstrip(".!?") + rng.choice((*ENDINGS, text[-1:] if text[-1:] in ".!?" else ""))
    elif rng.random() < 0.1:
        text += rng.choice(("\n", " please", " "))
    return fill(text, slots)


def fill(text: str, slots: Mapping[str, str]) -> str:
    """``text`` with its slots filled, each in turn: a value may hold braces."""
    return "".join(slots[part[1:-1]] if _SLOT.fullmatch(part) else part for part in _SLOT.split(text))


def inline(rng: random.Random, things: Sequence[str]) -> str:
    """A list within a sentence."""
    match rng.randrange(12):
        case 0 | 1 | 2 | 3 | 4:
            return ", ".join(things)
        case 5 | 6:
            return _with_and(things, ", ")
        case 7:
            return " ".join(things)
        case 8:
            return ",".join(things)
        case 9:
            return "[" + ", ".join(things) + "]"
        case 10:
            quote = rng.choice("'\"")
            return ", ".join(f"{quote}{thing}{quote}" for thing in things)
        case _:
            return "; ".join(things)


def tail(rng: random.Random, things: Sequence[str], leads: Sequence[str] = ()) -> str:
    """A list that ends a question, with what leads to it: one of ``leads`` where it is in the same line."""
    match rng.randrange(10):
        case 0:
            return rng.choice((":\n", "\n")) + "\n".join(things)
        case 1:
            mark = rng.choice("-*")
            return rng.choice((":\n", "\n")) + "\n".join(f"{mark} {thing}" for thing in things)
        case _:
            return after(rng, inline(rng, things), leads)


def after(rng: random.Random, text: str, leads: Sequence[str] = ()) -> str:
    """``text`` as the end of a question, with what leads to it."""
    return rng.choice(leads or (*MARKS, " ", " ")) + text


def quoted(rng: random.Random, text: str) -> str:
    """In quotation marks of some kind, or in none."""
    return rng.choice(("{}", "{}", '"{}"', "'{}'")).replace("{}", text)


def plain(question: str) -> str:
    """A wording without what case, politeness and signs make of it: equal ones are one wording."""
    text = re.sub(r"[^a-z{}_]+", " ", question.lower().removeprefix("~")).strip()
    for phrase in sorted((p.strip(" !,:").lower() for p in POLITE), key=len, reverse=True):
        text = text.removeprefix(f"{phrase} ")
    return text


def _with_and(things: Sequence[str], separator: str) -> str:
    *first, last = things
    return f"{separator.join(first)} and {last}" if first else last


def _uncapitalised(text: str) -> str:
    """Names such as JSON stay, and so do slots."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _in_case(text: str, case: Callable[[str], str]) -> str:
    """``text`` in another case; slots keep their names."""
    parts = _SLOT.split(text)
    return "".join(part if _SLOT.fullmatch(part) else case(part) for part in parts)
