"""Stop strings: text passes unless it is, or may become, a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scan:
    """``text`` may be shown; after a match, nothing that follows may."""

    text: str
    is_match: bool = False


class StopScanner:
    """Finds the stop string that is completed first; of those completed together, the longest.

    The end of the text is held back while it is the beginning of a stop string, so that nothing of a match is
    ever shown and the result does not depend on where the text was cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, piece: str) -> Scan:
        text = self._held + piece
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            _, start = min(found)
            self._held = ""
            return Scan(text[:start], is_match=True)
        keep = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[keep:]
        return Scan(text[:keep])

    def flush(self) -> str:
        """The text still held back: the beginning of a stop string that did not come."""
        text, self._held = self._held, ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop`` without being all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
