"""Values of a parameter that change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Neutral:
    """Whether a value changes nothing, given its siblings in the same object; ``remedy`` says what does."""

    accepts: Callable[[Any, Mapping[str, Any]], bool]
    remedy: str


def only(*values: Any) -> Neutral:
    """Neutral with one of ``values``; with null alone where there is none."""
    choices = " or ".join(repr(value) for value in values)
    remedy = f"leave it out, or send {choices}" if values else "leave it out"
    return Neutral(lambda given, _: any(is_same(given, value) for value in values), remedy)


HINT = Neutral(lambda *_: True, "")
OFF = only(False)
ZERO = only(0)
ONE = only(1)
ABSENT = only()
EMPTY_LIST = only([])
EMPTY_OBJECT = only({})


def is_same(given: Any, value: Any) -> bool:
    return bool(given == value) and isinstance(given, bool) == isinstance(value, bool)
