"""What a program does with pydantic-ai: outputs by call and by schema, tools. Arguments: URL KEY MODEL."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any, Literal

from orders import MAX_TOKENS, QUESTION, Order, fields_of
from outcomes import tell
from pydantic_ai import Agent, ModelSettings, NativeOutput, RunContext, ToolOutput
from pydantic_ai.capabilities import PrepareOutputTools
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

URL, KEY, MODEL = sys.argv[1:]
BY_CALL, BY_SCHEMA = ToolOutput(Order), NativeOutput(Order)


def agent(output: Any, kind: Any = OpenAIChatModel, **more: Any) -> Agent[None, Any]:
    model = kind(MODEL, provider=OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY))
    return Agent(model, output_type=output, model_settings=ModelSettings(max_tokens=MAX_TOKENS), **more)


def run(output: Any, kind: Any = OpenAIChatModel) -> Any:
    return fields_of(agent(output, kind).run_sync(QUESTION).output)


def run_stream(output: Any) -> Any:
    async def collect() -> Any:
        async with agent(output).run_stream(QUESTION) as result:
            *_, last = [state async for state in result.stream_output(debounce_by=None)]
            made = await result.get_output()
        assert last == made, (last, made)
        return made

    return fields_of(asyncio.run(collect()))


def tools() -> Any:
    """A step that calls a tool and one that answers: this model would not know when to do which."""

    def only_at_first(context: RunContext[None], definition: ToolDefinition) -> ToolDefinition | None:
        return definition if context.run_step == 1 else None

    def only_later(context: RunContext[None], definitions: list[ToolDefinition]) -> list[ToolDefinition]:
        return definitions if context.run_step > 1 else []

    one = agent(BY_CALL, capabilities=[PrepareOutputTools(only_later)])
    called = []

    @one.tool_plain(prepare=only_at_first)
    def price(size: Literal["small", "large"], is_warm: bool) -> str:
        """Tell the price of a drink."""
        called.append((size, is_warm))
        return "2.50"

    output = one.run_sync(QUESTION).output
    assert called
    return fields_of(output)


tell(
    {
        "run by default": partial(run, Order),
        "run by call": partial(run, BY_CALL),
        "run by schema": partial(run, BY_SCHEMA),
        "responses by call": partial(run, BY_CALL, OpenAIResponsesModel),
        "responses by schema": partial(run, BY_SCHEMA, OpenAIResponsesModel),
        "stream by call": partial(run_stream, BY_CALL),
        "stream by schema": partial(run_stream, BY_SCHEMA),
        "tools": tools,
    }
)
