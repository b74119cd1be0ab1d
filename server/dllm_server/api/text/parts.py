"""What a choice says: content, thoughts, calls of tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Said:
    """A piece of the content."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what stands in the thinking section."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A whole call; ``arguments`` is a JSON object as the model wrote it."""

    name: str
    arguments: str


Part = Said | Thought | Called


def content_of(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Said))
