"""What chat and plain completions have in common when a generation becomes an answer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.scored_prompt import PromptScored
from dllm_server.api.answers.token import GeneratedToken
from dllm_server.api.schemas.responses import DllmStats, FinishName, PromptTokensDetails, Usage
from dllm_server.api.text.parts import Called, Part, Thought, content_of
from dllm_server.engine.requests.messages import RequestStats


@dataclass(slots=True)
class ChoiceResult:
    """All of one choice, gathered from its events."""

    plan: ChoicePlan
    parts: list[Part] = field(default_factory=list)
    tokens: list[GeneratedToken] = field(default_factory=list)
    thought_tokens: int = 0  # of the blocks that say thoughts and nothing else
    has_begun: bool = False
    has_ended: bool = False
    prompt: PromptScored | None = None
    finish_reason: FinishName = "length"
    stop_reason: str | int | None = None
    stop_token: GeneratedToken | None = None
    stats: RequestStats = field(default_factory=RequestStats)

    @property
    def text(self) -> str:
        """The content so far."""
        return content_of(self.parts)

    @property
    def thoughts(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Thought))

    @property
    def calls(self) -> list[Called]:
        return [part for part in self.parts if isinstance(part, Called)]

    @property
    def completion_tokens(self) -> int:
        """Generated tokens so far that count."""
        return len(self.tokens)

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def add(self, event: ChoiceDelta | ChoiceEnd) -> None:
        self.has_begun = True
        self.parts += event.parts
        self.stats = event.stats
        match event:
            case PromptScored():
                self.prompt = event
            case ChoiceDelta():
                self.tokens += event.tokens
                if event.parts and all(isinstance(part, Thought) for part in event.parts):
                    self.thought_tokens += len(event.tokens)
            case ChoiceEnd():
                self.has_ended = True
                self.finish_reason, self.stop_reason = event.finish_reason, event.stop_reason
                self.stop_token = event.stop_token


def call_id(plan: ChoicePlan, place: int) -> str:
    """The id of a choice's call, counted from 0; the same for a whole answer and a streamed one."""
    # The engine's id was drawn at random.
    return f"call_{derived_id('' if plan.generate is None else plan.generate.request_id, place)}"


def derived_id(whole_id: str, place: int) -> str:
    """An id for a part of what has ``whole_id``."""
    return hashlib.blake2b(f"{whole_id}:{place}".encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class AnswerHeader:
    """What every body and chunk of an answer repeats."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


def usage_of(results: Sequence[ChoiceResult]) -> Usage:
    """Generated tokens of all choices; a prompt counts once, whatever its number of choices, with what the
    first of them found in the cache."""
    prompts = {id(result.plan.prompt): len(result.plan.prompt.token_ids) for result in results}
    prompt_tokens = sum(prompts.values())
    completion_tokens = sum(result.completion_tokens for result in results)
    details = None
    if any(result.plan.is_block_causal for result in results):
        first = {id(result.plan.prompt): result.stats.cached_tokens for result in reversed(results)}
        details = PromptTokensDetails(cached_tokens=sum(first.values()))
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=details,
    )


def stats_of(results: Sequence[ChoiceResult]) -> DllmStats:
    forward_passes = sum(result.stats.forward_passes for result in results)
    completion_tokens = sum(result.completion_tokens for result in results)
    is_block_causal = any(result.plan.is_block_causal for result in results)
    refreshes = sum(result.stats.refresh_passes for result in results)
    prefills = sum(result.stats.prefill_passes for result in results)
    return DllmStats(
        forward_passes=forward_passes,
        refresh_passes=None if is_block_causal else refreshes,
        prefill_passes=prefills if is_block_causal else None,
        tokens_per_forward=round(completion_tokens / forward_passes, 4) if forward_passes else 0.0,
        queue_seconds=round(sum(result.stats.queue_seconds for result in results), 6),
    )
