"""Answers in the shape of chat completions."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_server.api.answers.answer import ChoiceResult
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.format import AnswerFormat
from dllm_server.api.answers.token import GeneratedToken
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.responses import (
    AssistantMessage,
    ChatAlternative,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatTokenLogprob,
)


class ChatFormat(AnswerFormat[ChatCompletionRequest, ChatChoice, ChatChunkChoice]):
    id_prefix = "chatcmpl"
    body_type = ChatCompletion
    chunk_type = ChatChunk

    def _choice(self, result: ChoiceResult) -> ChatChoice:
        return ChatChoice(
            index=result.plan.index,
            message=AssistantMessage(content=result.text),
            logprobs=self._logprobs(result.tokens),
        )

    def _part(
        self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool
    ) -> ChatChunkChoice:
        is_empty_end = isinstance(event, ChoiceEnd) and not event.text and not is_first
        return ChatChunkChoice(
            index=event.index,
            delta=ChatDelta(
                role="assistant" if is_first else None, content=None if is_empty_end else event.text
            ),
            logprobs=self._logprobs(event.tokens) if isinstance(event, ChoiceDelta) else None,
        )

    def _logprobs(self, tokens: Sequence[GeneratedToken]) -> ChatLogprobs | None:
        if not self.asked.logprobs:
            return None
        as_id = self.asked.return_tokens_as_token_ids
        return ChatLogprobs(
            content=[
                ChatTokenLogprob(
                    token=token.name(as_id=as_id),
                    logprob=token.logprob,
                    bytes=token.utf8,
                    top_logprobs=[
                        ChatAlternative(
                            token=other.name(as_id=as_id), logprob=other.logprob, bytes=other.utf8
                        )
                        for other in token.alternatives
                    ],
                )
                for token in tokens
            ]
        )
