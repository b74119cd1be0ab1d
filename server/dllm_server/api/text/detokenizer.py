"""Incremental detokenisation: the text that each token adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"  # what decoders give for bytes that are not (yet) UTF-8
_INCOMPLETE = 3  # bytes of a UTF-8 character that may still lack its last one
_LONG_WINDOW = 32
_SHORT_WINDOW = 8
_LONGEST_WINDOW = 128


class Detokenizer:
    """Turns a growing list of tokens into a growing text, one token at a time, so that no cut can matter.

    All pushes and the final ``flush`` together give ``decode`` of all tokens, if that is valid text without
    replacement characters of its own; with a decoder that gives each byte for itself (byte-level BPE),
    whatever it is. The last replacement characters
    wait, since the next tokens may complete them. Only a window of recent tokens is decoded again: it moves
    on when a shorter one gives the same end of the text, and at ``_LONGEST_WINDOW`` tokens in any case, so
    that the work a token costs is bounded.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._text = ""  # of the window
        self._shown = ""  # the beginning of it that was given out
        self._takes_back = 0  # changes since the decoder took back what was shown

    def push(self, token_id: int) -> str:
        """Append a token and give the text that is certain now and was not before."""
        self._window.append(token_id)
        before, self._text = self._text, self._decode(self._window)
        ready = _without_incomplete(self._text)
        if self._text.startswith(self._shown):
            self._takes_back = 0
        elif self._takes_back <= _INCOMPLETE:
            # A byte run that lacks its end is all replacement characters, until its last byte has come.
            self._takes_back += self._text != before
            ready = ""
        text = self._show(ready)
        if len(self._window) > _LONG_WINDOW:
            text += self._move_window()
        return text

    def flush(self) -> str:
        """The text still held back: bytes that no token completed."""
        return self._show(self._text)

    def _show(self, ready: str) -> str:
        """The part of ``ready`` that was not shown yet."""
        new = ready[len(self._shown) :]
        if new:
            self._shown = ready
        return new

    def _move_window(self) -> str:
        """Go on with fewer tokens where that changes nothing, or where it must be; gives text only then."""
        for window in self._shorter_windows():
            text = self._decode(window)
            dropped = len(self._text) - len(text)
            is_same_end = self._text.endswith(text) and bool(text or not self._text)
            if is_same_end and dropped <= len(self._shown) and self._text.startswith(self._shown):
                self._window, self._text, self._shown = window, text, self._shown[dropped:]
                return ""
        if len(self._window) < _LONGEST_WINDOW:
            return ""
        rest = self.flush()
        self._window = self._window[-_SHORT_WINDOW:]
        self._text = self._shown = self._decode(self._window)
        return rest

    def _shorter_windows(self) -> Iterator[list[int]]:
        """Recent tokens, from each place where a character may begin; behind them, if they have no text, the
        last ones that do."""
        lengths = range(_SHORT_WINDOW, _SHORT_WINDOW + _INCOMPLETE + 1)
        yield from (self._window[-length:] for length in lengths)
        rest = self._window[-_SHORT_WINDOW:]
        if not self._decode(rest):
            carriers = [token_id for token_id in self._window[:-_SHORT_WINDOW] if self._decode([token_id])]
            yield from ([*carriers[-count:], *rest] for count in range(_INCOMPLETE + 1, 2 * _INCOMPLETE + 2))


def _without_incomplete(text: str) -> str:
    """``text`` without the replacement characters at its end that a coming byte may still complete."""
    return text[: max(len(text.rstrip(REPLACEMENT)), len(text) - _INCOMPLETE)]
