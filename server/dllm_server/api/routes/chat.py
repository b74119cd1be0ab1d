"""/v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.chat_format import ChatFormat
from dllm_server.api.routes.named_body import named_body_route
from dllm_server.api.routes.respond import STREAM_DOCS, respond
from dllm_server.api.schemas.requests import ChatCompletionRequest
from dllm_server.api.schemas.responses import ChatCompletion
from dllm_server.api.service import Service


def chat_router(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["OpenAI"],
        route_class=named_body_route(service.settings.unknown_parameters, service.text_workers),
    )

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses=STREAM_DOCS,
        summary="Answer a conversation",
    )
    async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(body.n)
        prompt = await service.chat_prompt(body)
        return await respond(service, request, body, [prompt], ChatFormat)

    return router
