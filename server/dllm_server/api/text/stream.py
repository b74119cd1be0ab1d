"""The text of one choice: committed blocks in, text that may be shown out, until a stop string matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_server.api.text.detokenizer import Decode, Detokenizer
from dllm_server.api.text.stop_strings import StopScanner, StopStrings


@dataclass(frozen=True, slots=True)
class Piece:
    """What a block adds: the text to show, the text of each token that counts, and the stop string that
    ended it, if one did."""

    text: str
    token_texts: list[str]
    stop: str | None = None


class ChoiceText:
    """Detokenises and looks for stop strings, token by token: the text cannot depend on the blocks."""

    def __init__(
        self, decode: Decode, stops: StopStrings, *, shows_stop: bool = False, first_scanned: int = 0
    ) -> None:
        """No stop string may begin in the text of the tokens before ``first_scanned``."""
        self._unscanned = first_scanned
        self._detokenizer = Detokenizer(decode)
        self._scanner = StopScanner(stops, is_shown=shows_stop)

    def push(self, token_ids: Sequence[int]) -> Piece:
        """Add a block. Tokens after the one that completes a stop string do not count; none may follow."""
        shown: list[str] = []
        token_texts: list[str] = []
        for token_id in token_ids:
            token_texts.append(self._detokenizer.push(token_id))
            if self._unscanned > 0:
                self._unscanned -= 1
                shown.append(token_texts[-1])
                continue
            scan = self._scanner.push(token_texts[-1])
            shown.append(scan.text)
            if scan.stop is not None:
                return Piece("".join(shown), token_texts, scan.stop)
        return Piece("".join(shown), token_texts)

    def flush(self) -> Piece:
        """What was held back, at the end of the tokens."""
        scan = self._scanner.push(self._detokenizer.flush())
        if scan.stop is not None:
            return Piece(scan.text, [], scan.stop)
        return Piece(scan.text + self._scanner.flush(), [])
