"""What a program does with instructor, in its modes TOOLS and JSON_SCHEMA. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import instructor
import openai
from orders import MAX_TOKENS, QUESTION, Order, fields_of
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]
ADDRESS: Any = {"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
ASKED: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "response_model": Order,
    "max_tokens": MAX_TOKENS,
    "max_retries": 0,
}


def client(mode: instructor.Mode) -> Any:
    return instructor.from_openai(openai.OpenAI(**ADDRESS), mode=mode)


def create(mode: instructor.Mode) -> Any:
    return fields_of(client(mode).chat.completions.create(**ASKED))


def create_async(mode: instructor.Mode) -> Any:
    async def run() -> Any:
        several = instructor.from_openai(openai.AsyncOpenAI(**ADDRESS), mode=mode)
        return await several.chat.completions.create(**ASKED)

    return fields_of(asyncio.run(run()))


def create_partial(mode: instructor.Mode) -> Any:
    """A call comes at once, a text field by field."""
    states = list(client(mode).chat.completions.create_partial(**ASKED))
    assert mode is instructor.Mode.TOOLS or states[0] != states[-1], states
    return states[-1].model_dump(mode="json")


tell(
    {
        f"{case.__name__} {mode.name}": partial(case, mode)
        for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA)
        for case in (create, create_async, create_partial)
    }
)
