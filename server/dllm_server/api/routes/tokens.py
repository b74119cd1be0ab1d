"""/tokenize and /detokenize, in vLLM's shapes."""

from __future__ import annotations

from fastapi import APIRouter

from dllm_server.api.routes.named_body import named_body_route
from dllm_server.api.schemas.errors import invalid_request
from dllm_server.api.schemas.requests import DetokenizeRequest, TokenizeRequest
from dllm_server.api.schemas.responses import Detokenized, Tokenized
from dllm_server.api.service import Service


def tokens_router(service: Service) -> APIRouter:
    router = APIRouter(
        tags=["Tokens"],
        route_class=named_body_route(service.settings.unknown_parameters, service.text_workers),
    )

    @router.post("/tokenize", summary="Tokens of a text or a conversation")
    async def tokenize(body: TokenizeRequest) -> Tokenized:
        service.check_model(body.model)
        if body.prompt is not None:
            tokens = await service.encode(body.prompt, add_special_tokens=body.add_special_tokens)
        else:
            tokens = await service.encode_chat(body.messages or [], body)
        return Tokenized(count=len(tokens), max_model_len=service.limits.max_tokens, tokens=tokens)

    @router.post("/detokenize", summary="Text of tokens, special ones included")
    async def detokenize(body: DetokenizeRequest) -> Detokenized:
        service.check_model(body.model)
        if not service.tokenizer.has_text:
            raise invalid_request("this model's directory has no tokenizer files", param="tokens")
        if (largest := max(body.tokens, default=0)) >= service.limits.model.vocab_size:
            raise invalid_request(
                f"token id {largest} is past the vocabulary's {service.limits.model.vocab_size - 1}",
                param="tokens",
            )
        return Detokenized(prompt=await service.decode(body.tokens))

    return router
