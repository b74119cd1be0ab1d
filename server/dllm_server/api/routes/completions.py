"""/v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.plan import Prompt, plan_choices
from dllm_server.api.routes.chat import STREAM_DOCS
from dllm_server.api.routes.respond import answer_id, respond
from dllm_server.api.schemas.requests import CompletionRequest
from dllm_server.api.schemas.responses import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionLogprobs,
)
from dllm_server.api.service import Service

DEFAULT_MAX_TOKENS = 16


def completions_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=STREAM_DOCS,
        summary="Continue one or more prompts",
    )
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(body.n * len(body.prompt))
        body_id = answer_id(request, "cmpl")
        prompts = [await _read_prompt(service, prompt, echo=body.echo) for prompt in body.prompt]
        plans = plan_choices(
            body,
            prompts,
            service.limits,
            request_id=body_id,
            max_tokens=body.max_tokens,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            prompt_param="prompt",
        )
        answer = CompletionAnswer(AnswerHeader(body_id, service.model_name), body)
        return await respond(service, request, body, plans, answer)

    return router


async def _read_prompt(service: Service, prompt: str | list[int], *, echo: bool) -> Prompt:
    if isinstance(prompt, str):
        return Prompt(await service.encode(prompt), prompt)
    in_vocabulary = echo and max(prompt) < service.limits.model.vocab_size
    return Prompt(prompt, await service.decode(prompt) if in_vocabulary else "")


class CompletionAnswer:
    """Writes answers in the shape of plain completions."""

    def __init__(self, header: AnswerHeader, asked: CompletionRequest) -> None:
        self.header = header
        self._asked = asked

    def whole(self, results: Sequence[ChoiceResult]) -> Completion:
        return Completion(
            id=self.header.id,
            created=self.header.created,
            model=self.header.model,
            choices=[self._choice(result) for result in results],
            usage=usage_of(results),
            dllm_stats=stats_of(results),
        )

    def chunk(
        self, result: ChoiceResult, event: ChoiceDelta | ChoiceEnd, *, is_first: bool
    ) -> CompletionChunk:
        returns_tokens = self._asked.return_token_ids
        text = result.plan.prompt.text + event.text if is_first and self._asked.echo else event.text
        choice = CompletionChoice(index=event.index, text=text, finish_reason=None)
        if returns_tokens and is_first:
            choice.prompt_token_ids = result.plan.prompt.token_ids
        match event:
            case ChoiceDelta():
                begins_at = sum(map(len, result.token_texts))
                choice.logprobs = self._logprobs(event.token_texts, event.logprobs, begins_at)
                choice.token_ids = event.token_ids if returns_tokens else None
            case ChoiceEnd():
                choice.finish_reason = event.finish_reason
        return self._chunk([choice])

    def last_chunk(self) -> CompletionChunk:
        return self._chunk([])

    def _chunk(self, choices: list[CompletionChoice]) -> CompletionChunk:
        header = self.header
        return CompletionChunk(id=header.id, created=header.created, model=header.model, choices=choices)

    def _choice(self, result: ChoiceResult) -> CompletionChoice:
        returns_tokens = self._asked.return_token_ids
        return CompletionChoice(
            index=result.plan.index,
            text=result.plan.prompt.text + result.text if self._asked.echo else result.text,
            logprobs=self._logprobs(result.token_texts, result.logprobs, 0),
            finish_reason=result.finish_reason,
            prompt_token_ids=result.plan.prompt.token_ids if returns_tokens else None,
            token_ids=result.token_ids if returns_tokens else None,
        )

    def _logprobs(
        self, texts: Sequence[str], logprobs: Sequence[float], begins_at: int
    ) -> CompletionLogprobs | None:
        if self._asked.logprobs is None:
            return None
        offsets = list(accumulate(map(len, texts), initial=begins_at))[:-1]
        return CompletionLogprobs(tokens=list(texts), token_logprobs=list(logprobs), text_offset=offsets)
