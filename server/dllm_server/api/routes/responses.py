"""/v1/responses."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from dllm_server.api.answers.response_format import ResponseFormat
from dllm_server.api.guards.body_limit import has_large_body
from dllm_server.api.routes.named_body import named_body_route
from dllm_server.api.routes.respond import respond
from dllm_server.api.schemas.response_body import ResponseBody
from dllm_server.api.schemas.response_request import ResponsesRequest
from dllm_server.api.service import Service

_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The response, or with stream: true server-sent events: response.created, "
        "response.in_progress, what becomes of each item, and response.completed, response.incomplete or "
        "response.failed at the end.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def responses_router(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["OpenAI"],
        route_class=named_body_route(service.settings.unknown_parameters, service.text_workers),
    )

    @router.post(
        "/v1/responses", response_model=ResponseBody, responses=_DOCS, summary="Answer with a response"
    )
    async def create_response(body: ResponsesRequest, request: Request) -> Response:
        service.check_model(body.model)
        service.admission.check(1)
        asked = await service.text_workers.read(body.for_chat, is_large=has_large_body(request.scope))
        prompt = await service.chat_prompt(asked)
        return await respond(service, request, asked, [prompt], ResponseFormat)

    return router
