"""/v1/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.completion_format import CompletionFormat
from dllm_server.api.answers.plan import Prompt, refuse_mask, tokens_left
from dllm_server.api.routes.named_body import named_body_route
from dllm_server.api.routes.respond import STREAM_DOCS, respond
from dllm_server.api.schemas.requests import CompletionRequest
from dllm_server.api.schemas.responses import Completion
from dllm_server.api.service import Service


def completions_router(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["OpenAI"],
        route_class=named_body_route(service.settings.unknown_parameters, service.text_workers),
    )

    @router.post(
        "/v1/completions",
        response_model=Completion,
        responses=STREAM_DOCS,
        summary="Continue one or more prompts",
    )
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(body.n * len(body.prompt))
        prompts = [
            await _read_prompt(service, body, prompt, body.prompt.path(index))
            for index, prompt in enumerate(body.prompt)
        ]
        return await respond(service, request, body, prompts, CompletionFormat)

    return router


async def _read_prompt(
    service: Service, body: CompletionRequest, prompt: str | list[int], path: str
) -> Prompt:
    if isinstance(prompt, str):
        return Prompt(await service.encode(prompt, add_special_tokens=body.add_special_tokens), prompt)
    tokens_left(len(prompt), service.limits, body)  # before each of too many is looked at
    refuse_mask(prompt, service.limits, path)
    in_vocabulary = body.echo and max(prompt) < service.limits.model.vocab_size
    return Prompt(prompt, await service.decode(prompt) if in_vocabulary else "")
