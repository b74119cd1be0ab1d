"""The shapes in which OpenAI's clients send prompts."""

from __future__ import annotations

from typing import Any

_PROMPT_SHAPES = "prompt is text, token ids (integers from 0), or a non-empty list of either"


def check_prompt(value: Any) -> list[str] | list[list[int]]:
    """Any of the four shapes as a list of texts or a list of token-id lists; ``ValueError`` says what is
    accepted."""
    prompts = [value] if isinstance(value, str) or _is_token_ids(value) else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError(_PROMPT_SHAPES)
    if all(isinstance(prompt, str) for prompt in prompts):
        return [check_text(prompt) for prompt in prompts]
    if all(_is_token_ids(prompt) for prompt in prompts):
        return prompts
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
    return (
        isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)
    )
