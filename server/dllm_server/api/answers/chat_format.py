"""Answers in the shape of chat completions."""

from __future__ import annotations

from collections.abc import Sequence

from dllm_server.api.answers.answer import ChoiceResult, call_id
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.chunk_format import ChunkFormat
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
    DeltaToolCall,
    FunctionCall,
    MessageToolCall,
)
from dllm_server.api.text.parts import Called, Thought


class ChatFormat(ChunkFormat[ChatCompletionRequest, ChatChoice, ChatChunkChoice]):
    id_prefix = "chatcmpl-"
    body_type = ChatCompletion
    chunk_type = ChatChunk

    def _choice(self, result: ChoiceResult) -> ChatChoice:
        calls = [
            MessageToolCall(
                id=call_id(result.plan, place),
                function=FunctionCall(name=call.name, arguments=call.arguments),
            )
            for place, call in enumerate(result.calls)
        ]
        return ChatChoice(
            index=result.plan.index,
            message=AssistantMessage(
                content=None if calls and not result.text else result.text,
                reasoning_content=result.thoughts or None,
                tool_calls=calls or None,
            ),
            logprobs=self._logprobs(result.tokens),
        )

    def _part(
        self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool
    ) -> ChatChunkChoice:
        thoughts = "".join(part.text for part in event.parts if isinstance(part, Thought))
        called = [part for part in event.parts if isinstance(part, Called)]
        calls = [
            DeltaToolCall(
                index=place,
                id=call_id(result.plan, place),
                function=FunctionCall(name=call.name, arguments=call.arguments),
            )
            for place, call in enumerate(called, len(result.calls))
        ]
        says_nothing = not event.text and (thoughts or calls or isinstance(event, ChoiceEnd))
        return ChatChunkChoice(
            index=event.index,
            delta=ChatDelta(
                role="assistant" if is_first else None,
                content=None if says_nothing and not is_first else event.text,
                reasoning_content=thoughts or None,
                tool_calls=calls or None,
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
