"""What a program does with langchain-openai. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="
OTHER_QUESTION = "Spell this word backward (example: sun -> nus): planet"
PROMPT = f"<|user|>{QUESTION}<|end|><|assistant|>"
OTHER_PROMPT = f"<|user|>{OTHER_QUESTION}<|end|><|assistant|>"


def chat_model(**more: Any) -> ChatOpenAI:
    given: Any = {"model": MODEL, "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
    return ChatOpenAI(**(given | more))


def completion_model(**more: Any) -> OpenAI:
    given: Any = {"model": MODEL, "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
    return OpenAI(**(given | {"temperature": 0} | more))


def invoke() -> Any:
    return chat_model().invoke(QUESTION).model_dump()


def stream() -> Any:
    chunks = list(chat_model(stream_usage=True).stream(QUESTION))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole.model_dump()


def batch() -> Any:
    return [message.content for message in chat_model().batch([QUESTION, OTHER_QUESTION])]


def asynchronous() -> Any:
    async def run() -> Any:
        model = chat_model()
        answers = await model.abatch([QUESTION, OTHER_QUESTION])
        streamed = "".join([chunk.content async for chunk in model.astream(QUESTION)])
        return {"batch": [answer.content for answer in answers], "stream": streamed}

    return asyncio.run(run())


def history() -> Any:
    """A chat that goes on with the message that came, and with one that another program has stored."""
    first = chat_model().invoke(QUESTION)
    stored = AIMessage(
        content="1823",
        id="run-1",
        additional_kwargs={"refusal": None, "reasoning_content": "917 + 585 = 1502"},
        response_metadata={"model_name": "another"},
    )
    messages = [SystemMessage("Be brief."), HumanMessage(QUESTION), first, HumanMessage(QUESTION), stored]
    return chat_model().invoke([*messages, HumanMessage(OTHER_QUESTION)]).model_dump()


def chain() -> Any:
    """A prompt template piped into a model that is bound to a stop."""
    template = ChatPromptTemplate.from_messages([("user", "{question}")])
    return (template | chat_model().bind(stop=["23"])).invoke({"question": QUESTION}).content


def with_every_setting() -> Any:
    model = chat_model(
        temperature=0,
        top_p=1,
        max_tokens=16,
        seed=7,
        n=1,
        stop=["never"],
        presence_penalty=0,
        frequency_penalty=0,
        reasoning_effort="low",
        verbosity="low",
        service_tier="auto",
        store=False,
        metadata={"run": "1"},
        logit_bias={},
        model_kwargs={"user": "somebody"},
    )
    return model.invoke(QUESTION).content


def logprobs() -> Any:
    return chat_model(logprobs=True, top_logprobs=3).invoke(QUESTION).response_metadata["logprobs"]


def completions() -> Any:
    model = completion_model(max_tokens=8)
    return {
        "invoke": model.invoke(PROMPT),
        "stream": "".join(model.stream(PROMPT)),
        "batch": model.batch([PROMPT, OTHER_PROMPT]),
        "generate": model.generate([PROMPT, OTHER_PROMPT]).llm_output,
    }


tell(
    {
        "invoke": invoke,
        "stream": stream,
        "batch": batch,
        "asynchronous": asynchronous,
        "history": history,
        "chain": chain,
        "with_every_setting": with_every_setting,
        "logprobs": logprobs,
        "completions": completions,
        "structured_output": lambda: (
            chat_model()
            .with_structured_output(
                {
                    "title": "n",
                    "type": "object",
                    "properties": {"a": {"type": "boolean"}},
                    "required": ["a"],
                    "additionalProperties": False,
                }
            )
            .invoke(QUESTION)
        ),
        "wrong_key": lambda: chat_model(api_key="wrong").invoke(QUESTION).model_dump(),
        "prompt_too_long": lambda: chat_model().invoke(QUESTION * 500).model_dump(),
        "too_long": lambda: chat_model(max_tokens=100_000).invoke(QUESTION).model_dump(),
    }
)
