"""What a program does with litellm, as OpenAI's provider and as vLLM's. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import litellm
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
MESSAGES: Any = [{"role": "user", "content": QUESTION}]


def arguments(provider: str = "openai", **more: Any) -> dict[str, Any]:
    given = {"model": f"{provider}/{MODEL}", "api_base": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
    return given | more


def ask(**more: Any) -> Any:
    return litellm.completion(**arguments(**({"messages": MESSAGES} | more)))


def chat_stream(provider: str) -> Any:
    options = {"include_usage": True}
    chunks = list(ask(provider=provider, stream=True, stream_options=options))
    whole = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
    return {
        "text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "whole": whole.model_dump(),
    }


def chat_stream_async() -> Any:
    async def collect() -> str:
        stream = await litellm.acompletion(**arguments(messages=MESSAGES, stream=True))
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    return asyncio.run(collect())


def chat_history() -> Any:
    """The answer goes back as litellm dumps it, provider_specific_fields and all."""
    first = ask().choices[0].message.model_dump()
    history = [*MESSAGES, first, *MESSAGES]
    return {"sent": sorted(first), "answer": ask(messages=history).model_dump()}


def chat_history_of_another_provider() -> Any:
    """A conversation that began with a provider that reasons and caches."""
    system = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
    assistant = {
        "role": "assistant",
        "content": "1823",
        "reasoning_content": "917 + 585 = 1502",
        "provider_specific_fields": {"refusal": None},
        "annotations": [],
    }
    history = [{"role": "system", "content": [system]}, *MESSAGES, assistant, *MESSAGES]
    return ask(messages=history).model_dump()


def chat_with_hints() -> Any:
    return ask(user="somebody", metadata={"run": "1"}, seed=1, top_p=1, n=1, parallel_tool_calls=False)


def vllm_parameters() -> Any:
    return ask(
        provider="hosted_vllm",
        extra_body={
            "top_k": -1,
            "min_p": 0,
            "repetition_penalty": 1.0,
            "chat_template_kwargs": {},
            "add_generation_prompt": True,
            "continue_final_message": False,
            "include_stop_str_in_output": False,
            "skip_special_tokens": True,
            "spaces_between_special_tokens": True,
            "priority": 0,
            "min_tokens": 0,
            "return_tokens_as_token_ids": False,
            "guided_json": None,
        },
    )


def text_completion() -> Any:
    prompt = f"<|user|>{QUESTION}<|end|><|assistant|>"
    return litellm.text_completion(
        **{**arguments(), "model": f"text-completion-openai/{MODEL}"}, prompt=prompt, max_tokens=8
    ).model_dump()


def content(answer: Any) -> Any:
    return answer.choices[0].message.content


tell(
    {
        "chat": lambda: ask().model_dump(),
        "chat_as_vllm": lambda: ask(provider="hosted_vllm").model_dump(),
        "chat_stream": lambda: chat_stream("openai"),
        "chat_stream_as_vllm": lambda: chat_stream("hosted_vllm"),
        "chat_stream_async": chat_stream_async,
        "chat_history": chat_history,
        "chat_history_of_another_provider": chat_history_of_another_provider,
        "chat_with_hints": lambda: content(chat_with_hints()),
        "vllm_parameters": lambda: content(vllm_parameters()),
        "text_completion": text_completion,
        "logprobs": lambda: ask(logprobs=True, top_logprobs=2).choices[0].model_dump(),
        "unknown_model": lambda: litellm.completion(
            **{**arguments(), "model": "openai/gpt-4", "messages": MESSAGES}
        ).model_dump(),
        "wrong_key": lambda: ask(api_key="wrong").model_dump(),
        "prompt_too_long": lambda: ask(messages=[{"role": "user", "content": QUESTION * 500}]).model_dump(),
        "too_long": lambda: ask(max_tokens=100_000).model_dump(),
        "nobody_listens": lambda: ask(api_base="http://127.0.0.1:9/v1").model_dump(),
    }
)
