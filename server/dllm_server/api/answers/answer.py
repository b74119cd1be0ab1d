"""What chat and plain completions have in common when a generation becomes an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.schemas.responses import Chunk, DllmStats, FinishName, Usage
from dllm_server.engine.requests.messages import RequestStats


@dataclass(slots=True)
class ChoiceResult:
    """All of one choice, gathered from its events."""

    plan: ChoicePlan
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    token_texts: list[str] = field(default_factory=list)
    finish_reason: FinishName = "length"
    completion_tokens: int = 0
    stats: RequestStats = field(default_factory=RequestStats)

    def add(self, event: ChoiceDelta | ChoiceEnd) -> None:
        self.text += event.text
        self.stats = event.stats
        match event:
            case ChoiceDelta():
                self.token_ids += event.token_ids
                self.logprobs += event.logprobs
                self.token_texts += event.token_texts
            case ChoiceEnd():
                self.finish_reason = event.finish_reason
                self.completion_tokens = event.completion_tokens


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """What every body and chunk of an answer repeats."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


class AnswerFormat(Protocol):
    """Chat's or plain completions' way to write an answer."""

    header: AnswerHeader

    def whole(self, results: Sequence[ChoiceResult]) -> BaseModel:
        """The body of an answer that is not streamed."""

    def chunk(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool) -> Chunk:
        """The chunk for an event; ``result`` holds what came before it, ``is_first`` is true once a
        choice."""

    def last_chunk(self) -> Chunk:
        """A chunk without choices, which will carry usage."""


def usage_of(results: Sequence[ChoiceResult]) -> Usage:
    """Generated tokens of all choices; a prompt counts once, whatever its number of choices."""
    prompts = {id(result.plan.prompt): len(result.plan.prompt.token_ids) for result in results}
    prompt_tokens = sum(prompts.values())
    completion_tokens = sum(result.completion_tokens for result in results)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def stats_of(results: Sequence[ChoiceResult]) -> DllmStats:
    forward_passes = sum(result.stats.forward_passes for result in results)
    completion_tokens = sum(result.completion_tokens for result in results)
    return DllmStats(
        forward_passes=forward_passes,
        refresh_passes=sum(result.stats.refresh_passes for result in results),
        tokens_per_forward=round(completion_tokens / forward_passes, 4) if forward_passes else 0.0,
    )
