"""What one step commits of a request with a grammar: a run of tokens from its first mask on. Pure but for the
match, which it moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dllm_server.structure.bound import Bound
from dllm_server.structure.compiler import GrammarError
from dllm_server.structure.match import GrammarMatch

FORCED_LOGPROB = 0.0  # among the tokens that are allowed


@dataclass(slots=True)
class Run:
    """``room`` masks follow each other. ``begin`` fills in what is forced; then ``ask`` says what is allowed
    next, and an ``offer`` answers, until nothing is asked. What is forced needs no confidence and counts for
    no bound.

    ``unended`` positions may hold none of ``stops`` unless nothing else is allowed. ``logprobs`` are those of
    ``tokens``, ``chosen`` the places of those that were not forced.
    """

    match: GrammarMatch
    bound: Bound
    room: int
    unended: int = 0
    stops: tuple[int, ...] = ()
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    is_done: bool = False
    _entropies: float = 0.0

    def begin(self, length: int) -> None:
        """Behind the first ``length`` tokens of the text."""
        try:
            self.match.rewind(length)
            self._force()
        except GrammarError as error:
            self._give_up(error)

    def ask(self) -> NDArray[np.uint8] | None:
        """A bit for each token that may be the next, the lowest first; None where none is to be chosen."""
        if not self.bound.may_admit(len(self.chosen)):
            self.is_done = True
        try:
            while not self.is_done and len(self.tokens) < self.room:
                bits = self._allowed()
                if np.bitwise_count(bits).sum() > 1:
                    return bits
                self._take(np.unpackbits(bits, bitorder="little").nonzero()[0].tolist())
        except GrammarError as error:
            self._give_up(error)
        return None

    def offer(self, token: int, logprob: float, confidence: float, entropy: float) -> bool:
        """Take a token that is allowed, and what it forces, if the bound admits it; else the run is done."""
        if not self.bound.admits(len(self.chosen), confidence, entropy, self._entropies):
            self.is_done = True
            return False
        self._entropies += entropy
        try:
            self.match.advance([token])
            self.chosen.append(len(self.tokens))
            self.tokens.append(token)
            self.logprobs.append(logprob)
            self.is_done = self.match.is_over
            self._force()
        except GrammarError as error:
            self._give_up(error)
        return True

    def _allowed(self) -> NDArray[np.uint8]:
        bits = self.match.allowed()
        if len(self.tokens) >= self.unended or not self.stops:
            return bits
        stops, others = np.array(self.stops), bits.copy()
        np.bitwise_and.at(others, stops // 8, ~(1 << stops % 8).astype(np.uint8))
        return others if others.any() else bits

    def _force(self) -> None:
        if not self.is_done:
            self._take(self.match.forced()[: self.room - len(self.tokens)])

    def _take(self, forced: list[int]) -> None:
        self.match.advance(forced)
        self.tokens += forced
        self.logprobs += [FORCED_LOGPROB] * len(forced)
        self.is_done = self.match.is_over

    def _give_up(self, error: GrammarError) -> None:
        self.match.problem, self.is_done = str(error), True
