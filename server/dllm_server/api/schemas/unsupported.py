"""OpenAI parameters that a diffusion server does not have: their neutral values pass, anything else is
refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

_ANY = object()

# Parameter -> values that ask for nothing; null always passes.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_json": (),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "metadata": (_ANY,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (_ANY,),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (_ANY,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "safety_identifier": (_ANY,),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "stop_token_ids": ([],),
    "store": (False,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "user": (_ANY,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

# Fields that clients copy from an answer back into the conversation.
_NEUTRAL_IN_MESSAGES: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "reasoning_content": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}


def drop_neutral_parameters(body: Any) -> Any:
    """``body`` without parameters that ask for nothing; ``PydanticCustomError`` names one that asks for
    something."""
    return _without_neutral(body, _NEUTRAL)


def drop_neutral_message_fields(message: Any) -> Any:
    return _without_neutral(message, _NEUTRAL_IN_MESSAGES)


def _without_neutral(body: Any, neutral: Mapping[str, tuple[Any, ...]]) -> Any:
    if not isinstance(body, dict):
        return body
    for name in sorted(body.keys() & neutral.keys()):
        if body[name] is not None and not any(_equals(body[name], value) for value in neutral[name]):
            raise PydanticCustomError(
                "unsupported_parameter",
                "{param} is not supported by this server: leave it out",
                {"param": name},
            )
    return {name: value for name, value in body.items() if name not in neutral}


def _equals(given: Any, neutral: Any) -> bool:
    if neutral is _ANY:
        return True
    return bool(given == neutral) and isinstance(given, bool) == isinstance(neutral, bool)
