"""How the public ``openai`` client meets a full queue. Arguments: URL KEY MODEL, of a server that runs one
request and lets one wait."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import openai
from outcomes import tell, told_error

URL, KEY, MODEL = sys.argv[1:]
MESSAGES: Any = [{"role": "user", "content": "Who are you?"}]
LONG: Any = {"ignore_eos": True, "diffusion": {"unmasking": {"strategy": "quota", "value": 1}}}


def client(max_retries: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=max_retries, timeout=240)


def refused() -> Any:
    """Four long requests at once; the first refusal ends the others."""

    async def ask_four() -> Any:
        async with client(max_retries=0) as several:
            asked = [
                asyncio.ensure_future(
                    several.chat.completions.create(
                        model=MODEL, messages=MESSAGES, max_tokens=1900, extra_body=LONG
                    )
                )
                for _ in range(4)
            ]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            return [told_error(error) for task in done if (error := task.exception())]

    return asyncio.run(ask_four())


def retried() -> Any:
    """Six short requests at once, with retries: the client waits as Retry-After says and gets through."""

    async def ask_six() -> list[str | None]:
        async with client(max_retries=60) as several:
            answers = await asyncio.gather(
                *(several.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(6))
            )
            return [answer.choices[0].message.content for answer in answers]

    return asyncio.run(ask_six())


tell({"refused": refused, "retried": retried})
