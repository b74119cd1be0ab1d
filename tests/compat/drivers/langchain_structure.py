"""How a program has langchain-openai structure answers and call tools. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from orders import MAX_TOKENS, QUESTION, Order, fields_of
from outcomes import tell

URL, KEY, MODEL = sys.argv[1:]


def chat_model(**more: Any) -> ChatOpenAI:
    given: Any = {"model": MODEL, "base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
    return ChatOpenAI(**(given | {"max_tokens": MAX_TOKENS} | more))


def json_schema() -> Any:
    return fields_of(chat_model().with_structured_output(Order).invoke(QUESTION))


def function_calling() -> Any:
    model = chat_model().with_structured_output(Order, method="function_calling", strict=True)
    return fields_of(model.invoke(QUESTION))


def stream() -> Any:
    *_, last = chat_model().with_structured_output(Order, method="function_calling").stream(QUESTION)
    return fields_of(last)


def asynchronous() -> Any:
    return fields_of(asyncio.run(chat_model().with_structured_output(Order).ainvoke(QUESTION)))


def with_the_message() -> Any:
    answer: Any = chat_model().with_structured_output(Order, include_raw=True).invoke(QUESTION)
    assert answer["parsing_error"] is None
    assert Order.model_validate_json(answer["raw"].content) == answer["parsed"]
    return fields_of(answer["parsed"])


def by_responses() -> Any:
    return fields_of(chat_model(use_responses_api=True).with_structured_output(Order).invoke(QUESTION))


@tool
def price(size: Literal["small", "large"], is_warm: bool) -> str:
    """Tell the price of a drink."""
    return "2.50"


def tools() -> Any:
    """A call, its result, and an answer with both in its history."""
    asked = HumanMessage(QUESTION)
    call: Any = chat_model().bind_tools([price], tool_choice="price", strict=True).invoke([asked])
    (result,) = [price.invoke(one) for one in call.tool_calls]
    assert result.content == "2.50"
    return fields_of(chat_model().with_structured_output(Order).invoke([asked, call, result]))


CASES = (json_schema, function_calling, stream, asynchronous, with_the_message, by_responses, tools)
tell({case.__name__: case for case in CASES})
