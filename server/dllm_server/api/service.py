"""What the routes share: the engine, the tokenizer, the limits and who is let in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from dllm_server.api.answers.generation import Generation
from dllm_server.api.answers.plan import ChoicePlan, Limits
from dllm_server.api.guards.admission import Admission
from dllm_server.api.guards.lifecycle import Lifecycle
from dllm_server.api.schemas.errors import invalid_request, unknown_model
from dllm_server.api.schemas.requests import ChatMessage
from dllm_server.engine.process.client import EngineClient
from dllm_server.models.tokenizer import Message, Tokenizer, TokenizerError
from dllm_server.settings import ApiSettings
from dllm_server.telemetry.metrics import Metrics

_LONG_TEXT = (
    16_384  # characters; tokenising more than this goes to a thread so that other requests do not wait
)


@dataclass(frozen=True, slots=True)
class Service:
    settings: ApiSettings
    engine: EngineClient
    tokenizer: Tokenizer
    limits: Limits
    lifecycle: Lifecycle
    admission: Admission
    metrics: Metrics
    started_at: int = field(default_factory=lambda: int(time.time()))

    @property
    def model_name(self) -> str:
        return self.limits.model.name

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.model_name:
            raise unknown_model(name, self.model_name)

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; ``ApiError`` 400 when the model has no tokenizer."""
        try:
            if len(text) <= _LONG_TEXT:
                return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
            return await asyncio.to_thread(self.tokenizer.encode, text, add_special_tokens=add_special_tokens)
        except TokenizerError as error:
            raise invalid_request(str(error), param="prompt") from error

    async def encode_chat(
        self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool = True
    ) -> list[int]:
        """Token ids of a conversation; ``ApiError`` 400 when the model's template cannot render it."""
        plain = [_plain(message) for message in messages]
        try:
            if sum(len(message["content"]) for message in plain) <= _LONG_TEXT:
                return self.tokenizer.encode_chat(plain, add_generation_prompt=add_generation_prompt)
            return await asyncio.to_thread(
                self.tokenizer.encode_chat, plain, add_generation_prompt=add_generation_prompt
            )
        except TokenizerError as error:
            raise invalid_request(str(error), param="messages") from error

    def start_generation(self, plans: Sequence[ChoicePlan]) -> Generation:
        """Start the planned choices; close the generation with ``admission.finish``. ``ApiError`` when
        refused."""
        if any(plan.stops for plan in plans) and not self.tokenizer.has_text:
            raise invalid_request("stop needs a tokenizer, which this model's directory lacks", param="stop")
        generation = Generation(
            self.engine,
            self.tokenizer.decode,
            plans,
            self.metrics.requests,
            timeout_seconds=self.settings.request_timeout_seconds,
        )
        self.admission.start(generation)
        return generation


def _plain(message: ChatMessage) -> Message:
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": message.content}
    return plain | {"name": message.name} if message.name is not None else plain
