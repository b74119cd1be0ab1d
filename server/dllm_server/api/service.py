"""What the routes share: the engine, the tokenizer, the limits and who is let in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from dllm_server.api.answers.chat_prompt import chat_prompt
from dllm_server.api.answers.generation import Generation
from dllm_server.api.answers.markup import Dialect
from dllm_server.api.answers.plan import ChoicePlan, Limits, Prompt
from dllm_server.api.guards.admission import Admission
from dllm_server.api.guards.lifecycle import Lifecycle
from dllm_server.api.guards.text_workers import LONG_SIZE, TextWorkers
from dllm_server.api.schemas.chat_template import TemplatedRequest
from dllm_server.api.schemas.errors import (
    invalid_request,
    past_context,
    unknown_model,
    unsupported,
)
from dllm_server.api.schemas.messages import ChatMessage
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.structured import AskedGrammar
from dllm_server.api.schemas.tools import Tool
from dllm_server.engine.process.client import EngineClient
from dllm_server.models.tokenizer import TextTooLongError, Tokenizer, TokenizerError
from dllm_server.settings import ApiSettings
from dllm_server.structure.checker import GrammarChecker
from dllm_server.structure.compiler import GrammarError
from dllm_server.telemetry.metrics import Metrics
from dllm_server.tracing import Tracer


@dataclass(frozen=True, slots=True)
class Service:
    settings: ApiSettings
    engine: EngineClient
    tokenizer: Tokenizer
    limits: Limits
    lifecycle: Lifecycle
    admission: Admission
    metrics: Metrics
    dialect: Dialect
    grammars: GrammarChecker
    tracer: Tracer | None = None
    text_workers: TextWorkers = field(default_factory=TextWorkers)
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def model_name(self) -> str:
        return self.limits.model.name

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise unknown_model(name, self.model_name)

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; ``ApiError`` 400 when there is no tokenizer, or more text than can fit."""
        work = partial(
            self.tokenizer.encode,
            text,
            add_special_tokens=add_special_tokens,
            most_tokens=self.limits.max_tokens,
        )
        return await self._tokenise(len(text), work, "prompt")

    async def encode_chat(self, messages: Sequence[ChatMessage], asked: TemplatedRequest) -> list[int]:
        """Token ids of a conversation; ``ApiError`` 400 when the model's template cannot render it, or when
        it is more text than can fit."""
        self._check_template(messages, asked)
        tools = asked.shown_tools

        def render() -> list[int]:
            return self.tokenizer.encode_chat(
                [message.for_template() for message in messages],
                add_generation_prompt=asked.adds_generation_prompt,
                continue_final_message=asked.continue_final_message,
                tools=[tool.for_template() for tool in tools],
                arguments=asked.template_arguments,
                most_tokens=self.limits.max_tokens,
            )

        return await self._tokenise(_size_of([*messages, *tools]), render, asked.prompt_param)

    def _check_template(self, messages: Sequence[ChatMessage], asked: TemplatedRequest) -> None:
        """``ApiError`` 400 for tools, calls and results where the model's template would not show them."""
        if not self.tokenizer.has_chat_template or self.tokenizer.template.shows_tools:
            return
        why = "this model's chat template knows no tools"
        if asked.shown_tools:
            raise unsupported(f"tools: {why}: leave them out", param="tools")
        for place, message in enumerate(messages):
            if message.tool_field is not None:
                param = asked.message_path(place, message.tool_field)
                raise unsupported(f"{param}: {why}", param=param)

    async def chat_prompt(self, asked: ChatCompletionRequest) -> Prompt:
        """A conversation's prompt; ``ApiError`` 400 where there is none, or where its answer could not be
        read or held to what it asks for."""
        token_ids = await self.encode_chat(asked.messages, asked)
        return await chat_prompt(asked, token_ids, self.dialect, self.grammars.check)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special ones included."""
        work = partial(self.tokenizer.decode, token_ids, skip_special_tokens=False)
        return await self.text_workers.run(len(token_ids), work)

    async def check_grammar(self, asked: AskedGrammar | None) -> None:
        """``ApiError`` 400 in the compiler's words where the grammar cannot be followed."""
        if asked is None:
            return
        try:
            await self.grammars.check(asked.grammar)
        except GrammarError as error:
            raise invalid_request(f"{asked.param}: {error}", param=asked.param, code="grammar") from error

    async def _tokenise(self, size: int, work: Callable[[], list[int]], param: str) -> list[int]:
        try:
            return await self.text_workers.run(size, work)
        except TextTooLongError as error:
            problem = f"the prompt is too long: {param}: {error}"
            raise past_context(self.limits.max_tokens, problem, param=param) from error
        except TokenizerError as error:
            raise invalid_request(str(error), param=param) from error

    def start_generation(self, plans: Sequence[ChoicePlan], arrived_seconds: float) -> Generation:
        """Start the planned choices; close the generation with ``admission.finish``. ``ApiError`` when
        refused."""
        if any(not plan.stops.is_empty for plan in plans) and not self.tokenizer.has_text:
            raise invalid_request("stop needs a tokenizer, which this model's directory lacks", param="stop")
        generation = Generation(
            self.engine,
            self.tokenizer.decode,
            plans,
            self.metrics.requests,
            arrived_seconds=arrived_seconds,
            timeout_seconds=self.settings.request_timeout_seconds,
        )
        self.admission.start(generation)
        return generation


def _size_of(parts: Iterable[ChatMessage | Tool]) -> int:
    """Characters of a conversation, about; counted until it is known to be long."""
    size = 0
    for part in parts:
        size += part.size + 100  # a part costs the template as much time as so many cost the tokenizer
        if size > LONG_SIZE:
            break
    return size
