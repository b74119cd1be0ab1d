"""Answers in the shape of plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from dllm_server.api.answers.answer import ChoiceResult
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.chunk_format import ChunkFormat
from dllm_server.api.answers.scored_prompt import PromptScored
from dllm_server.api.answers.token import GeneratedToken, Token
from dllm_server.api.schemas.requests import CompletionRequest
from dllm_server.api.schemas.responses import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
)


class CompletionFormat(ChunkFormat[CompletionRequest, CompletionChoice, CompletionChoice]):
    id_prefix = "cmpl-"
    body_type = Completion
    chunk_type = CompletionChunk

    def _choice(self, result: ChoiceResult) -> CompletionChoice:
        prompt = [] if result.prompt is None else [*result.prompt.given, *result.prompt.scored]
        begins_at = len(self._echo(result)) - _length(prompt)
        last = self._last(result.stop_token)
        return CompletionChoice(
            index=result.plan.index,
            text=self._echo(result) + result.text,
            logprobs=self._logprobs([*prompt, *result.tokens, *last], begins_at),
        )

    def _part(
        self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool
    ) -> CompletionChoice:
        logprobs, echo = None, self._echo(result)
        match event:
            case PromptScored():
                prompt = [*event.given, *event.scored]
                logprobs = self._logprobs(prompt, len(echo) - _length(prompt))
            case ChoiceDelta():
                logprobs = self._logprobs(event.tokens, len(echo) + _length(result.tokens))
            case ChoiceEnd() if last := self._last(event.stop_token):
                logprobs = self._logprobs(last, len(echo) + _length(result.tokens))
        text = echo + event.text if is_first else event.text
        return CompletionChoice(index=event.index, text=text, logprobs=logprobs)

    def _echo(self, result: ChoiceResult) -> str:
        return result.plan.prompt.text if self.asked.echo else ""

    def _last(self, stop_token: GeneratedToken | None) -> list[GeneratedToken]:
        """The stop token, where the prompt is scored: who sends ``max_tokens`` 1 to have a prompt scored, as
        lm-eval does, takes the last of ``logprobs`` for what was generated, whatever it is."""
        return [stop_token] if self.asked.echo and stop_token is not None else []

    def _logprobs(self, tokens: Sequence[Token], begins_at: int) -> CompletionLogprobs | None:
        """Special tokens that the tokenizer put before the text begin where it does."""
        if self.asked.logprobs is None:
            return None
        as_id = self.asked.return_tokens_as_token_ids
        told = [token if isinstance(token, GeneratedToken) else None for token in tokens]
        starts = list(accumulate((len(token.text) for token in tokens), initial=begins_at))[:-1]
        return CompletionLogprobs(
            tokens=[token.name(as_id=as_id) for token in tokens],
            token_logprobs=[None if token is None else token.logprob for token in told],
            top_logprobs=[None if token is None else _by_name(token, as_id=as_id) for token in told],
            text_offset=[max(start, 0) for start in starts],
        )


def _length(tokens: Sequence[Token]) -> int:
    return sum(len(token.text) for token in tokens)


def _by_name(token: GeneratedToken, *, as_id: bool) -> dict[str, float]:
    """The alternatives and the token itself, of several with one name the likeliest."""
    named: dict[str, float] = {}
    for other in (*token.alternatives, token):
        named.setdefault(other.name(as_id=as_id), other.logprob)
    return named
