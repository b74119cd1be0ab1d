"""/v1/models."""

from __future__ import annotations

from fastapi import APIRouter

from dllm_server.api.answers.decoding_options import decoding_options
from dllm_server.api.schemas.responses import ModelCard, ModelList
from dllm_server.api.service import Service


def models_router(service: Service) -> APIRouter:
    router = APIRouter(tags=["OpenAI"])

    has_chat_template = service.tokenizer.has_chat_template
    decoding = decoding_options(service.limits, has_chat_template=has_chat_template)

    def card() -> ModelCard:
        return ModelCard(
            id=service.model_name,
            created=service.started_at,
            max_model_len=service.limits.max_tokens,
            decoding=decoding,
        )

    @router.get("/v1/models", summary="List the served model")
    async def list_models() -> ModelList:
        return ModelList(data=[card()])

    @router.get("/v1/models/{model:path}", summary="Describe the served model")
    async def retrieve_model(model: str) -> ModelCard:
        service.check_model(model)
        return card()

    return router
