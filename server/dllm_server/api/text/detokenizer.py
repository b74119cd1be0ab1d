"""Incremental detokenisation: the text that each token adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"  # what decoders give for bytes that are not (yet) UTF-8
_LONG_WINDOW = 64
_SHORT_WINDOW = 16


class Detokenizer:
    """Turns a growing list of tokens into a growing text, one token at a time, so that no cut can matter.

    All pushes and the final ``flush`` together give ``decode`` of all tokens, if that is valid text. Trailing
    replacement characters wait, since the next token may complete them. Only a window of recent tokens is
    decoded again: it moves when the text of its tail is the tail of its text.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._given = 0  # characters of the window's text already given out

    def push(self, token_id: int) -> str:
        """Append a token and give the text that is certain now and was not before."""
        self._window.append(token_id)
        text = self._decode(self._window).rstrip(REPLACEMENT)[self._given :]
        self._given += len(text)
        if len(self._window) > _LONG_WINDOW:
            self._move_window()
        return text

    def flush(self) -> str:
        """The text still held back: bytes that no token completed."""
        text = self._decode(self._window)[self._given :]
        self._given += len(text)
        return text

    def _move_window(self) -> None:
        tail = self._window[-_SHORT_WINDOW:]
        text, tail_text = self._decode(self._window), self._decode(tail)
        dropped = len(text) - len(tail_text)
        is_whole = text.endswith(tail_text) and not text.endswith(REPLACEMENT)
        if tail_text.strip() and is_whole and dropped <= self._given:
            self._window, self._given = tail, self._given - dropped
