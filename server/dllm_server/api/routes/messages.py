"""/v1/messages, in the shape of Anthropic's API."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.message_format import MessageFormat
from dllm_server.api.guards.body_limit import has_large_body
from dllm_server.api.routes.named_body import named_body_route
from dllm_server.api.routes.respond import respond
from dllm_server.api.schemas.errors import MESSAGES_PATH
from dllm_server.api.schemas.message_body import CountedTokens, MessageBody
from dllm_server.api.schemas.message_request import CountRequest, MessagesRequest
from dllm_server.api.service import Service

_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The message, or with stream: true server-sent events: message_start, what becomes of "
        "each content block, message_delta and message_stop.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def messages_router(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["Anthropic"],
        route_class=named_body_route(service.settings.unknown_parameters, service.text_workers),
    )

    @router.post(MESSAGES_PATH, response_model=MessageBody, responses=_DOCS, summary="Answer with a message")
    async def create_message(body: MessagesRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(1)
        asked = await service.text_workers.read(body.for_chat, is_large=has_large_body(request.scope))
        prompt = await service.chat_prompt(asked)
        return await respond(service, request, asked, [prompt], MessageFormat)

    @router.post(f"{MESSAGES_PATH}/count_tokens", summary="Tokens of a conversation")
    async def count_tokens(body: CountRequest, request: Request) -> CountedTokens:
        service.check_model(body.model)
        asked = await service.text_workers.read(body.for_chat, is_large=has_large_body(request.scope))
        return CountedTokens(input_tokens=len(await service.encode_chat(asked.messages, asked)))

    return router
