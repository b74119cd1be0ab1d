"""How a program has the public ``openai`` client parse answers and calls. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import openai
from orders import MAX_TOKENS, QUESTION, Order, fields_of
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]
ADDRESS: Any = {"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
ASKED: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": MAX_TOKENS}
CALLS: Any = {
    "tools": [openai.pydantic_function_tool(Order)],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
RESPONSE: Any = {"model": MODEL, "input": QUESTION, "max_output_tokens": MAX_TOKENS}

client = openai.OpenAI(**ADDRESS)


def parse() -> Any:
    answer = client.chat.completions.parse(response_format=Order, **ASKED)
    return fields_of(answer.choices[0].message.parsed)


def parse_async() -> Any:
    async def run() -> Any:
        async with openai.AsyncOpenAI(**ADDRESS) as several:
            return await several.chat.completions.parse(response_format=Order, **ASKED)

    return fields_of(asyncio.run(run()).choices[0].message.parsed)


def parse_call() -> Any:
    (call,) = client.chat.completions.parse(**CALLS, **ASKED).choices[0].message.tool_calls or []
    return fields_of(call.function.parsed_arguments)


def stream() -> Any:
    """With the fields that are there after each part of the text."""
    with client.chat.completions.stream(response_format=Order, **ASKED) as events:
        states: Any = [event.parsed for event in events if event.type == "content.delta"]
        answer = events.get_final_completion()
    counts = [len(state or {}) for state in states]
    assert counts == sorted(counts), counts
    assert counts[0] < counts[-1], counts
    return fields_of(answer.choices[0].message.parsed)


def stream_call() -> Any:
    with client.chat.completions.stream(**CALLS, **ASKED) as events:
        (call,) = events.get_final_completion().choices[0].message.tool_calls or []
    return fields_of(call.function.parsed_arguments)


def history() -> Any:
    """The parsed answer goes back as the object that it is."""
    first = client.chat.completions.parse(response_format=Order, **ASKED).choices[0].message
    asked = ASKED | {"messages": [*MESSAGES, first, *MESSAGES]}
    answer = client.chat.completions.parse(response_format=Order, **asked)
    return fields_of(answer.choices[0].message.parsed)


def response() -> Any:
    return fields_of(client.responses.parse(text_format=Order, **RESPONSE).output_parsed)


def response_stream() -> Any:
    with client.responses.stream(text_format=Order, **RESPONSE) as events:
        return fields_of(events.get_final_response().output_parsed)


CASES = (parse, parse_async, parse_call, stream, stream_call, history, response, response_stream)
tell({case.__name__: case for case in CASES})
