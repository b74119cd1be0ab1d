"""Stop strings: text passes unless it is, or may become, a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Scan:
    """``text`` may be shown; after a match, which ends with ``stop``, nothing that follows may."""

    text: str
    stop: str | None = None


@dataclass(slots=True)
class _Node:
    """A beginning of stop strings, ``length`` characters long. It ends with ``shorter``, the longest other
    beginning that it ends with, and with ``stop``, the longest such stop string."""

    length: int = 0
    next: dict[str, _Node] = field(default_factory=dict)
    shorter: _Node | None = None
    stop: str | None = None


class StopStrings:
    """An automaton over all stop strings (Aho and Corasick, 1975): a character costs the same however many
    there are. It does not change, so the choices of a request share it."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.root = _Node()
        for stop in stops:
            node = self.root
            for character in stop:
                node = node.next.setdefault(character, _Node(node.length + 1))
            node.stop = stop
        waiting = deque([self.root])
        while waiting:
            node = waiting.popleft()
            for character, longer in node.next.items():
                longer.shorter = self.step(node.shorter, character) if node.shorter else self.root
                longer.stop = longer.stop or longer.shorter.stop
                waiting.append(longer)

    @property
    def is_empty(self) -> bool:
        return not self.root.next

    def step(self, node: _Node, character: str) -> _Node:
        """The longest beginning of a stop string that the text ends with after one more character."""
        at: _Node | None = node
        while at is not None:
            if (found := at.next.get(character)) is not None:
                return found
            at = at.shorter
        return self.root


class StopScanner:
    """Finds the stop string that is completed first; of those completed together, the longest.

    The end of the text is held back while it is the beginning of a stop string, so that nothing of a match is
    shown (or all of it, with ``is_shown``) and the result does not depend on where the text was cut.
    """

    def __init__(self, stops: StopStrings, *, is_shown: bool = False) -> None:
        self._stops = stops
        self._is_shown = is_shown
        self._node = stops.root
        self._held = ""

    def push(self, piece: str) -> Scan:
        text = self._held + piece
        for end, character in enumerate(piece, len(self._held) + 1):
            self._node = self._stops.step(self._node, character)
            if (stop := self._node.stop) is not None:
                self._held = ""
                return Scan(text[: end if self._is_shown else end - len(stop)], stop)
        keep = len(text) - self._node.length
        self._held = text[keep:]
        return Scan(text[:keep])

    def flush(self) -> str:
        """The text still held back: the beginning of a stop string that did not come."""
        text, self._held = self._held, ""
        self._node = self._stops.root
        return text
