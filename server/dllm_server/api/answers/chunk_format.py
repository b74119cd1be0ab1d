"""Answers whose streams are chunks: the outline that chat and plain completions share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from dllm_server.api.answers.answer import ChoiceResult, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.format import AnswerFormat, Asked
from dllm_server.api.answers.frame import frame
from dllm_server.api.answers.scored_prompt import PromptScored
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.responses import ChoiceFields, Chunk

Whole = TypeVar("Whole", bound=ChoiceFields)
Part = TypeVar("Part", bound=ChoiceFields)


class ChunkFormat(AnswerFormat[Asked], Generic[Asked, Whole, Part]):
    """Its two classes say in which shapes."""

    body_type: ClassVar[Callable[..., BaseModel]]
    chunk_type: ClassVar[Callable[..., Chunk]]

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

    def frames(self, results: Sequence[ChoiceResult], event: ChoiceDelta | ChoiceEnd) -> list[bytes]:
        result = results[event.index]
        chunk = self._chunk(result, event)
        result.add(event)
        if self.asked.includes_usage_in_every_chunk:
            chunk.usage = usage_of(results)
        if all(other.has_ended for other in results):
            chunk.dllm_stats = stats_of(results)
        return [frame(chunk.model_dump_json())]

    def closing(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        frames = [frame("[DONE]")]
        if self.asked.includes_usage:
            chunk = self.chunk_type(**asdict(self.header), choices=[])
            chunk.usage, chunk.dllm_stats = usage_of(results), stats_of(results)
            frames.insert(0, frame(chunk.model_dump_json()))
        return frames

    def failure(self, error: ApiError) -> bytes:
        return frame(error.content().decode())

    def _chunk(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd) -> Chunk:
        """The chunk for an event; ``result`` holds what came before it."""
        is_first = not result.has_begun
        choice = self._part(result, event, is_first=is_first)
        if isinstance(event, ChoiceEnd):
            choice.finish_reason, choice.stop_reason = event.finish_reason, event.stop_reason
        elif self.asked.return_token_ids and not isinstance(event, PromptScored):
            choice.token_ids = event.token_ids
        if self.asked.return_token_ids and is_first:
            choice.prompt_token_ids = result.plan.prompt.token_ids
        return self.chunk_type(**asdict(self.header), choices=[choice])

    @abstractmethod
    def _choice(self, result: ChoiceResult) -> Whole:
        """Text and logprobs of a choice that has ended."""

    @abstractmethod
    def _part(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool) -> Part:
        """Text and logprobs that an event adds to a choice."""
