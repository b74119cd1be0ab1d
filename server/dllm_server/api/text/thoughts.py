"""Thoughts: what a text says between ``<think>`` and ``</think>`` at its beginning."""

from __future__ import annotations

from enum import Enum, auto

from dllm_server.api.text.parts import Part, Said, Thought

OPENING, CLOSING = "<think>", "</think>"


class _At(Enum):
    BEGINNING = auto()
    THOUGHTS = auto()
    CONTENT = auto()


class ThoughtsParser:
    """Parts thoughts from content, whatever the pieces of the text are. White space around the thoughts is
    neither. A text that ends inside of them is all thoughts."""

    markers = (OPENING, CLOSING)

    def __init__(self, *, is_open: bool) -> None:
        """``is_open``: the prompt has opened the thinking section."""
        self._is_open = is_open
        self._at = _At.BEGINNING
        self._held = ""
        self._has_begun = False  # what is said now: its leading white space is gone

    def push(self, piece: str) -> list[Part]:
        self._held += piece
        parts: list[Part] = []
        if self._at is _At.BEGINNING:
            text = self._held.lstrip()
            if not text.startswith(OPENING) and OPENING.startswith(text):
                return []
            if text.startswith(OPENING) or self._is_open:
                self._at, self._held = _At.THOUGHTS, text.removeprefix(OPENING)
            else:
                self._at, self._has_begun = _At.CONTENT, True
        if self._at is _At.THOUGHTS:
            thoughts, closing, rest = self._held.partition(CLOSING)
            if closing:
                parts += self._begun(thoughts.rstrip(), Thought)
                self._at, self._held, self._has_begun = _At.CONTENT, rest, False
            else:
                self._held = self._undecided(thoughts)
                parts += self._begun(thoughts[: len(thoughts) - len(self._held)], Thought)
        if self._at is _At.CONTENT:
            parts += self._begun(self._held, Said)
            self._held = ""
        return parts

    def flush(self) -> list[Part]:
        """What was held back, at the end of the text."""
        text, self._held = self._held, ""
        if self._at is _At.THOUGHTS or (self._at is _At.BEGINNING and self._is_open):
            return self._begun(text.rstrip(), Thought)
        return [Said(text)] if text else []

    def _begun(self, text: str, kind: type[Said] | type[Thought]) -> list[Part]:
        if not self._has_begun:
            text = text.lstrip()
        if not text:
            return []
        self._has_begun = True
        return [kind(text)]

    def _undecided(self, thoughts: str) -> str:
        """The end of the thoughts that may be the beginning of their end."""
        marked = beginning_at_end(thoughts, CLOSING)
        return thoughts[len(thoughts[: len(thoughts) - marked].rstrip()) :]


def beginning_at_end(text: str, marker: str) -> int:
    """Length of the longest beginning of ``marker``, but not all of it, that ``text`` ends with."""
    longest = min(len(marker) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(marker[:length])), 0)
