"""How an answer is written: the outline that chat and plain completions share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.scored_prompt import PromptScored
from dllm_server.api.schemas.requests import GenerationRequest
from dllm_server.api.schemas.responses import ChoiceFields, Chunk

Asked = TypeVar("Asked", bound=GenerationRequest)
Whole = TypeVar("Whole", bound=ChoiceFields)
Part = TypeVar("Part", bound=ChoiceFields)


class AnswerFormat(ABC, Generic[Asked, Whole, Part]):
    """Writes answers to ``asked``; its two classes say in which shapes."""

    id_prefix: ClassVar[str]
    body_type: ClassVar[Callable[..., BaseModel]]
    chunk_type: ClassVar[Callable[..., Chunk]]

    def __init__(self, header: AnswerHeader, asked: Asked) -> None:
        self.header = header
        self.asked = asked

    def whole(self, results: Sequence[ChoiceResult]) -> BaseModel:
        """The body of an answer that is not streamed."""
        choices = []
        for result in results:
            choice = self._choice(result)
            choice.finish_reason, choice.stop_reason = result.finish_reason, result.stop_reason
            if self.asked.return_token_ids:
                choice.prompt_token_ids = result.plan.prompt.token_ids
                choice.token_ids = result.token_ids
            choices.append(choice)
        stats, usage = stats_of(results), usage_of(results)
        return self.body_type(**asdict(self.header), choices=choices, usage=usage, dllm_stats=stats)

    def chunk(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool) -> Chunk:
        """The chunk for an event; ``result`` holds what came before it, ``is_first`` is true once a
        choice."""
        choice = self._part(result, event, is_first=is_first)
        if isinstance(event, ChoiceEnd):
            choice.finish_reason, choice.stop_reason = event.finish_reason, event.stop_reason
        elif self.asked.return_token_ids and not isinstance(event, PromptScored):
            choice.token_ids = event.token_ids
        if self.asked.return_token_ids and is_first:
            choice.prompt_token_ids = result.plan.prompt.token_ids
        return self.chunk_type(**asdict(self.header), choices=[choice])

    def last_chunk(self) -> Chunk:
        """A chunk without choices, which will carry usage."""
        return self.chunk_type(**asdict(self.header), choices=[])

    @abstractmethod
    def _choice(self, result: ChoiceResult) -> Whole:
        """Text and logprobs of a choice that has ended."""

    @abstractmethod
    def _part(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool) -> Part:
        """Text and logprobs that an event adds to a choice."""
