"""What a program does with the public ``openai`` client. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import openai
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
OTHER_QUESTION = "Spell this word backward (example: sun -> nus): planet"
MESSAGES: Any = [{"role": "user", "content": QUESTION}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Lyon?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": words,
            "parameters": {"type": "object", "properties": {slot: {"type": kind}}, "required": [slot]},
        },
    }
    for name, words, slot, kind in (
        ("get_weather", "Weather of a city.", "city", "string"),
        ("set_timer", "Starts a timer.", "minutes", "integer"),
    )
]
CALL: Any = {
    "id": "1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Lyon"}'},
}

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=120)


SCHEMA = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 0, "maximum": 9}, "is_it": {"type": "boolean"}},
    "required": ["count", "is_it"],
    "additionalProperties": False,
}


def ask(**more: Any) -> Any:
    return client.chat.completions.create(**({"model": MODEL, "messages": MESSAGES} | more))


def complete(**more: Any) -> Any:
    return client.completions.create(**({"model": MODEL, "prompt": "<|user|>Who are you?<|end|>"} | more))


def chat() -> Any:
    answer = ask()
    assert isinstance(answer, ChatCompletion)
    return answer.model_dump()


def chat_stream() -> Any:
    options: Any = {"include_usage": True, "include_obfuscation": False}
    return [chunk.model_dump() for chunk in ask(stream=True, stream_options=options)]


def chat_stream_helper() -> Any:
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "final": stream.get_final_completion().choices[0].message.model_dump()}


def chat_with_hints() -> Any:
    """Everything that an application may send for its own ends, and that changes no answer."""
    return ask(
        store=False,
        service_tier="auto",
        reasoning_effort="low",
        verbosity="low",
        user="somebody",
        safety_identifier="somebody",
        prompt_cache_key="a",
        metadata={"run": "1"},
        parallel_tool_calls=True,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        logit_bias={},
        frequency_penalty=0,
        presence_penalty=0,
        modalities=["text"],
        n=1,
        top_p=1,
    ).model_dump()


def chat_of_parts() -> Any:
    parts = [{"type": "text", "text": QUESTION}]
    return ask(messages=[{"role": "user", "content": parts}]).choices[0].message.content


def chat_history() -> Any:
    """The answer goes back as it came, with all of its empty fields."""
    first = ask().choices[0].message
    history = [*MESSAGES, first.model_dump(), {"role": "user", "content": OTHER_QUESTION}]
    return ask(messages=history).model_dump()


def chat_history_as_object() -> Any:
    """As OpenAI's own examples do it: the message object itself."""
    return ask(messages=[*MESSAGES, ask().choices[0].message, *MESSAGES]).model_dump()


def chat_history_without_content() -> Any:
    return ask(messages=[*MESSAGES, {"role": "assistant", "content": None}, *MESSAGES]).model_dump()


def chat_logprobs() -> Any:
    return ask(logprobs=True, top_logprobs=5).choices[0].model_dump()


def chat_choices() -> Any:
    return [choice.index for choice in ask(n=3, temperature=1, seed=2**64 - 1).choices]


def chat_stops() -> Any:
    stops = ["never", "nowhere", "nobody", "nothing", "82"]
    return ask(extra_body={"stop": stops}).choices[0].model_dump()


def completion() -> Any:
    answer = complete(max_tokens=8)
    assert isinstance(answer, Completion)
    return answer.model_dump()


def completion_echo_stream() -> Any:
    whole = complete(max_tokens=8, echo=True).choices[0].text
    chunks = list(complete(max_tokens=8, echo=True, stream=True))
    return {"whole": whole, "streamed": "".join(chunk.choices[0].text for chunk in chunks)}


def completion_prompts() -> Any:
    """Prompts of different lengths, two choices each: each as if alone."""
    prompts = [f"<|user|>{question}<|end|><|assistant|>" for question in (QUESTION, OTHER_QUESTION)]
    return [(choice.index, choice.text) for choice in complete(prompt=prompts, n=2).choices]


def completion_logprobs() -> Any:
    return complete(max_tokens=8, logprobs=5).choices[0].model_dump()


def raw_response() -> Any:
    headers = {"X-Request-Id": "from-the-client"}
    reply = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, extra_headers=headers
    )
    return {
        "status": reply.status_code,
        "request_id": reply.request_id,
        "content": reply.parse().choices[0].message.content,
    }


def streaming_response() -> Any:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=MESSAGES, stream=True
    ) as reply:
        return {"type": reply.headers["content-type"], "lines": list(reply.iter_lines())}


def models() -> Any:
    return {
        "listed": [model.id for model in client.models.list()],
        "retrieved": client.models.retrieve(MODEL).model_dump(),
    }


def together() -> Any:
    """Sixteen at once: streamed or whole, with and without logprobs, one or two choices."""

    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=120
        ) as several:

            async def one(number: int) -> str | None:
                more: Any = {"logprobs": True, "top_logprobs": 2} if number % 2 else {}
                if number % 4 < 2:
                    answer = await several.chat.completions.create(
                        model=MODEL, messages=MESSAGES, n=1 + number % 3 // 2, **more
                    )
                    return answer.choices[0].message.content
                stream = await several.chat.completions.create(
                    model=MODEL, messages=MESSAGES, stream=True, **more
                )
                return "".join(
                    [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                )

            return await asyncio.gather(*map(one, range(16)))

    return asyncio.run(ask_all())


def response() -> Any:
    answer = client.responses.create(model=MODEL, input=QUESTION, store=True)
    assert isinstance(answer, Response)
    return {"said": answer.output_text, "status": answer.status, "store": answer.model_dump()["store"]}


def response_stream() -> Any:
    with client.responses.stream(model=MODEL, input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        return {"kinds": kinds, "text": stream.get_final_response().output_text}


def nobody_listens() -> Any:
    elsewhere = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0)
    return elsewhere.models.list().model_dump()


def out_of_patience() -> Any:
    return ask(max_tokens=1900, timeout=0.001, extra_body={"ignore_eos": True}).model_dump()


tell(
    {
        "chat": chat,
        "chat_stream": chat_stream,
        "chat_stream_helper": chat_stream_helper,
        "chat_with_hints": chat_with_hints,
        "chat_of_parts": chat_of_parts,
        "chat_history": chat_history,
        "chat_history_as_object": chat_history_as_object,
        "chat_history_without_content": chat_history_without_content,
        "chat_logprobs": chat_logprobs,
        "chat_choices": chat_choices,
        "chat_stops": chat_stops,
        "completion": completion,
        "completion_echo_stream": completion_echo_stream,
        "completion_prompts": completion_prompts,
        "completion_logprobs": completion_logprobs,
        "raw_response": raw_response,
        "streaming_response": streaming_response,
        "models": models,
        "together": together,
        "unknown_model": lambda: ask(model="gpt-4").model_dump(),
        "retrieve_unknown_model": lambda: client.models.retrieve("gpt-4").model_dump(),
        "too_long": lambda: ask(max_tokens=100_000).model_dump(),
        "tools": lambda: ask(messages=WEATHER, tools=TOOLS, max_tokens=96).model_dump(),
        "tool_history": lambda: ask(
            messages=[
                *WEATHER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "42"},
            ],
            tools=TOOLS,
        ).model_dump(),
        "json_schema": lambda: ask(
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        ).model_dump(),
        "json_object": lambda: ask(response_format={"type": "json_object"}, max_tokens=3).model_dump(),
        "schema_refused": lambda: ask(
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}
        ).model_dump(),
        "image": lambda: ask(
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
        ).model_dump(),
        "unknown_parameter": lambda: ask(extra_body={"max_tokns": 5}).model_dump(),
        "response": response,
        "response_stream": response_stream,
        "response_of_another": lambda: client.responses.create(
            model=MODEL, input="Hi", previous_response_id="resp_1"
        ).model_dump(),
        "embeddings": lambda: client.embeddings.create(model=MODEL, input="Hi").model_dump(),
        "wrong_key": lambda: client.with_options(api_key="wrong").models.list().model_dump(),
        "nobody_listens": nobody_listens,
        "out_of_patience": out_of_patience,
    }
)
