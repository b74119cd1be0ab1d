"""The text of one choice: committed blocks in, text that may be shown out, until a stop string matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.api.text.detokenizer import Decode, Detokenizer
from dllm_server.api.text.stop_strings import StopScanner


@dataclass(frozen=True, slots=True)
class Piece:
    """What a block adds: the text to show, the text of each token that counts, and whether a stop string
    ended it."""

    text: str
    token_texts: list[str]
    is_stopped: bool = False


class ChoiceText:
    """Detokenises and looks for stop strings, token by token: the text cannot depend on the blocks."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(stops)

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Add a block. Tokens after the one that completes a stop string do not count; none may follow."""
        shown: list[str] = []
        token_texts: list[str] = []
        for token_id in token_ids:
            token_texts.append(self._detokenizer.push(token_id))
            scan = self._scanner.push(token_texts[-1])
            shown.append(scan.text)
            if scan.is_match:
                return Piece("".join(shown), token_texts, is_stopped=True)
        return Piece("".join(shown), token_texts)

    def flush(self) -> Piece:
        """What was held back, at the end of the tokens."""
        scan = self._scanner.push(self._detokenizer.flush())
        if scan.is_match:
            return Piece(scan.text, [], is_stopped=True)
        return Piece(scan.text + self._scanner.flush(), [])
