"""One token of an answer and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

_LEAST_LOGPROB = -9999.0  # written for a token without any probability: JSON has no infinity


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    text: str

    @property
    def utf8(self) -> list[int]:
        return list(self.text.encode())

    def name(self, *, as_id: bool) -> str:
        """How logprobs show it: by its text, which two tokens may share, or by its id."""
        return f"token_id:{self.id}" if as_id else self.text


@dataclass(frozen=True, slots=True)
class Alternative(Token):
    """A token that might stand at a position, by its own text."""

    log_confidence: float

    @property
    def logprob(self) -> float:
        return max(self.log_confidence, _LEAST_LOGPROB)


@dataclass(frozen=True, slots=True)
class GeneratedToken(Alternative):
    """The token that does; ``text`` is what it adds, so nothing inside a character of several tokens.
    ``alternatives`` are the likeliest there, itself perhaps among them, the likeliest first."""

    alternatives: tuple[Alternative, ...] = ()
