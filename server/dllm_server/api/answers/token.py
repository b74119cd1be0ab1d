"""One generated token and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GeneratedToken:
    """``text`` is what the token adds to the text: nothing inside a character of several tokens."""

    id: int
    text: str
    logprob: float

    @property
    def utf8(self) -> list[int]:
        return list(self.text.encode())

    def name(self, *, as_id: bool) -> str:
        """How logprobs show it: by its text, which two tokens may share, or by its id."""
        return f"token_id:{self.id}" if as_id else self.text
