"""The parts of one choice's text: thoughts, content, calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from dllm_server.api.text.parts import Called, Part, Said, Thought
from dllm_server.api.text.thoughts import ThoughtsParser
from dllm_server.api.text.tool_calls import CALL_PARSERS
from dllm_server.settings import ToolCallParser


class Thinking(Enum):
    """Whether a text may begin with thoughts, and what becomes of them."""

    NO = auto()  # all text is content
    MAY = auto()
    OPEN = auto()  # it does: the prompt has opened their section


@dataclass(frozen=True, slots=True)
class Markup:
    """What a choice's text may hold besides content. ``kept_tokens`` are its markers, which stay in the
    text although they may be special tokens."""

    thinking: Thinking = Thinking.NO
    tells_thoughts: bool = True
    calls: ToolCallParser | None = None
    tools: frozenset[str] = frozenset()
    is_one_call: bool = False  # the answer ends with its first call
    kept_tokens: frozenset[int] = frozenset()


PLAIN = Markup()


class Speech:
    """Reads pieces of a text as ``markup`` says; what comes of it does not depend on where they were cut."""

    def __init__(self, markup: Markup) -> None:
        self._markup = markup
        thinking = markup.thinking
        self._thoughts = (
            ThoughtsParser(is_open=thinking is Thinking.OPEN) if thinking is not Thinking.NO else None
        )
        self._calls = CALL_PARSERS[markup.calls](markup.tools) if markup.calls is not None else None
        self.has_called = False

    @property
    def is_over(self) -> bool:
        """Whether nothing that follows counts."""
        return self.has_called and self._markup.is_one_call

    def push(self, text: str) -> tuple[Part, ...]:
        if self._thoughts is None:
            return self._told(self._read(text))
        return self._told(self._read_parts(self._thoughts.push(text)))

    def flush(self) -> tuple[Part, ...]:
        """What was held back, at the end of the text."""
        parts = self._read_parts(self._thoughts.flush()) if self._thoughts is not None else []
        return self._told([*parts, *(self._calls.flush() if self._calls is not None else [])])

    def _read_parts(self, parts: list[Part]) -> list[Part]:
        read: list[Part] = []
        for part in parts:
            read += self._read(part.text) if isinstance(part, Said) else [part]
        return read

    def _read(self, text: str) -> list[Part]:
        if self._calls is not None:
            return self._calls.push(text)
        return [Said(text)] if text else []

    def _told(self, parts: list[Part]) -> tuple[Part, ...]:
        told: list[Part] = []
        for part in parts:
            if self.is_over:
                break
            self.has_called |= isinstance(part, Called)
            if self._markup.tells_thoughts or not isinstance(part, Thought):
                told.append(part)
        return tuple(told)
