"""A text on its way through its grammar."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from dllm_server.structure.compiler import GrammarError, raise_error


class GrammarMatch:
    """Follows one text token by token, and goes back where tokens were not kept. Every method raises
    ``GrammarError`` where the grammar has become too complex to be followed."""

    def __init__(self, compiled: LLMatcher, mask_token_id: int) -> None:
        """``compiled`` stays as it is, before the first token. The mask is no text, even where the grammar
        names it."""
        self._compiled, self._mask = compiled, mask_token_id
        self._matcher, self.length = compiled.deep_copy(), 0
        self.problem: str | None = None  # why it can be followed no further

    def anew(self) -> GrammarMatch:
        """Before the first token of another text."""
        return GrammarMatch(self._compiled, self._mask)

    @property
    def is_over(self) -> bool:
        """Whether nothing may follow: the text is whole."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def rewind(self, length: int) -> None:
        """Back to the first ``length`` tokens."""
        if self.length > length:
            self._matcher.rollback(self.length - length)
            raise_error(self._matcher)
            self.length = length

    def forced(self) -> list[int]:
        """The tokens of what must follow, as far as that is known."""
        tokens = list(self._matcher.compute_ff_tokens())
        if self._mask in tokens:
            raise GrammarError("it asks for the mask token, which is no text")
        return tokens

    def allowed(self) -> NDArray[np.uint8]:
        """A bit for each token that may be the next, the lowest first."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        raise_error(self._matcher)
        byte, bit = divmod(self._mask, 8)
        if bits[byte] >> bit & 1:
            bits = bits.copy()
            bits[byte] &= ~np.uint8(1 << bit)
        if not bits.any():
            raise GrammarError("it asks for the mask token, which is no text")
        return bits

    def advance(self, tokens: Sequence[int]) -> None:
        """``tokens`` follow, which are allowed."""
        self._matcher.consume_tokens(list(tokens))
        raise_error(self._matcher)
        self.length += len(tokens)
