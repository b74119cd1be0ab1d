"""/v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.plan import Prompt, plan_choices
from dllm_server.api.routes.respond import answer_id, respond
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.responses import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatTokenLogprob,
)
from dllm_server.api.service import Service

DEFAULT_MAX_TOKENS = 256

STREAM_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or with stream: true server-sent events: a chunk for each committed "
        "block, then 'data: [DONE]'. A failure after the first chunk is an event with an error object, "
        "which ends the stream.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def chat_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=STREAM_DOCS,
        summary="Answer a conversation",
    )
    async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(body.n)
        body_id = answer_id(request, "chatcmpl")
        prompt = Prompt(await service.encode_chat(body.messages))
        plans = plan_choices(
            body,
            [prompt],
            service.limits,
            request_id=body_id,
            max_tokens=body.max_completion_tokens or body.max_tokens,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            prompt_param="messages",
        )
        answer = ChatAnswer(AnswerHeader(body_id, service.model_name), body)
        return await respond(service, request, body, plans, answer)

    return router


class ChatAnswer:
    """Writes answers in the shape of chat completions."""

    def __init__(self, header: AnswerHeader, asked: ChatCompletionRequest) -> None:
        self.header = header
        self._asked = asked

    def whole(self, results: Sequence[ChoiceResult]) -> ChatCompletion:
        return ChatCompletion(
            id=self.header.id,
            created=self.header.created,
            model=self.header.model,
            choices=[self._choice(result) for result in results],
            usage=usage_of(results),
            dllm_stats=stats_of(results),
        )

    def chunk(self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool) -> ChatChunk:
        returns_tokens = self._asked.return_token_ids
        is_empty_end = isinstance(event, ChoiceEnd) and not event.text and not is_first
        delta = ChatDelta(
            role="assistant" if is_first else None, content=None if is_empty_end else event.text
        )
        choice = ChatChunkChoice(index=event.index, delta=delta)
        if returns_tokens and is_first:
            choice.prompt_token_ids = result.plan.prompt.token_ids
        match event:
            case ChoiceDelta():
                choice.logprobs = self._logprobs(event.token_texts, event.logprobs)
                choice.token_ids = event.token_ids if returns_tokens else None
            case ChoiceEnd():
                choice.finish_reason = event.finish_reason
        return self._chunk([choice])

    def last_chunk(self) -> ChatChunk:
        return self._chunk([])

    def _chunk(self, choices: list[ChatChunkChoice]) -> ChatChunk:
        header = self.header
        return ChatChunk(id=header.id, created=header.created, model=header.model, choices=choices)

    def _choice(self, result: ChoiceResult) -> ChatChoice:
        returns_tokens = self._asked.return_token_ids
        return ChatChoice(
            index=result.plan.index,
            message=AssistantMessage(content=result.text),
            logprobs=self._logprobs(result.token_texts, result.logprobs),
            finish_reason=result.finish_reason,
            prompt_token_ids=result.plan.prompt.token_ids if returns_tokens else None,
            token_ids=result.token_ids if returns_tokens else None,
        )

    def _logprobs(self, texts: Sequence[str], logprobs: Sequence[float]) -> ChatLogprobs | None:
        if not self._asked.logprobs:
            return None
        return ChatLogprobs(
            content=[
                ChatTokenLogprob(token=text, logprob=logprob, bytes=list(text.encode()))
                for text, logprob in zip(texts, logprobs, strict=True)
            ]
        )
