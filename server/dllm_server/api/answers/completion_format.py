"""Answers in the shape of plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from dllm_server.api.answers.answer import ChoiceResult
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.format import AnswerFormat
from dllm_server.api.answers.token import GeneratedToken
from dllm_server.api.schemas.requests import CompletionRequest
from dllm_server.api.schemas.responses import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
)


class CompletionFormat(AnswerFormat[CompletionRequest, CompletionChoice, CompletionChoice]):
    id_prefix = "cmpl"
    body_type = Completion
    chunk_type = CompletionChunk

    def _choice(self, result: ChoiceResult) -> CompletionChoice:
        return CompletionChoice(
            index=result.plan.index,
            text=self._echo(result) + result.text,
            logprobs=self._logprobs(result.tokens, 0),
        )

    def _part(
        self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool
    ) -> CompletionChoice:
        begins_at = sum(len(token.text) for token in result.tokens)
        return CompletionChoice(
            index=event.index,
            text=self._echo(result) + event.text if is_first else event.text,
            logprobs=self._logprobs(event.tokens, begins_at) if isinstance(event, ChoiceDelta) else None,
        )

    def _echo(self, result: ChoiceResult) -> str:
        return result.plan.prompt.text if self.asked.echo else ""

    def _logprobs(self, tokens: Sequence[GeneratedToken], begins_at: int) -> CompletionLogprobs | None:
        if self.asked.logprobs is None:
            return None
        as_id = self.asked.return_tokens_as_token_ids
        return CompletionLogprobs(
            tokens=[token.name(as_id=as_id) for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[_by_name(token, as_id=as_id) for token in tokens],
            text_offset=list(accumulate((len(token.text) for token in tokens), initial=begins_at))[:-1],
        )


def _by_name(token: GeneratedToken, *, as_id: bool) -> dict[str, float]:
    """The alternatives and the token itself, of several with one name the likeliest."""
    named: dict[str, float] = {}
    for other in (*token.alternatives, token):
        named.setdefault(other.name(as_id=as_id), other.logprob)
    return named
