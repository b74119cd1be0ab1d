"""The shapes in which OpenAI's clients send prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_PROMPT_SHAPES = "prompt is text, token ids (integers from 0), or a non-empty list of either"


@dataclass(frozen=True, slots=True)
class PromptInput:
    """One or more texts, or one or more lists of token ids; ``is_list``: sent as a list of prompts."""

    prompts: Sequence[str] | Sequence[list[int]]
    is_list: bool

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[str | list[int]]:
        return iter(self.prompts)

    def path(self, index: int) -> str:
        """The name of a prompt in the request's body."""
        return f"prompt.{index}" if self.is_list else "prompt"


def check_prompt(value: Any) -> PromptInput:
    """Any of the four shapes; ``ValueError`` says what is accepted."""
    is_one = isinstance(value, str) or _is_token_ids(value)
    prompts = [value] if is_one else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(_PROMPT_SHAPES)
    if all(isinstance(prompt, str) for prompt in prompts):
        return PromptInput([check_text(prompt) for prompt in prompts], not is_one)
    if is_one or all(_is_token_ids(prompt) for prompt in prompts):
        return PromptInput(prompts, not is_one)
    raise ValueError(_PROMPT_SHAPES)


def check_text(value: Any) -> str:
    """A string that UTF-8 can encode: JSON can carry lone surrogates, a tokenizer cannot."""
    if not isinstance(value, str):
        raise ValueError("not a string")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("text holds a lone surrogate, which no UTF-8 can carry") from error
    return value


def _is_token_ids(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) == {int} and min(value) >= 0
