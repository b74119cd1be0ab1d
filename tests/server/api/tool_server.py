"""A server for tests of tools, whose engine says what a test has it say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
from dllm_server.engine.requests.messages import FinishReason, Generate
from dllm_server.models.tokenizer import Tokenizer
from scripted_engine import Script, Step, block, finished
from scripted_server import ScriptedServer


def saying(tokenizer: Tokenizer, *texts: str, reason: FinishReason = FinishReason.STOP) -> Script:
    """Each request is answered with one of the texts, in turn, in blocks of its length."""
    left = list(texts)

    def script(request: Generate) -> list[Step]:
        ids = tokenizer.encode(left.pop(0) if len(left) > 1 else left[0])
        size = request.diffusion.block_length
        blocks = [ids[start : start + size] for start in range(0, len(ids), size)]
        return [
            *(block(request, tokens, forwards=number) for number, tokens in enumerate(blocks, 1)),
            finished(request, reason=reason),
        ]

    return script


ServerOf = Callable[..., ScriptedServer]


def serving(tokenizer: Tokenizer, script: Script, **settings: Any) -> ScriptedServer:
    return ScriptedServer(
        script, tokenizer=tokenizer, model={"max_model_len": 4096, "max_request_tokens": 4096}, **settings
    )


def prompt_of(server: ScriptedServer, tokenizer: Tokenizer) -> str:
    """The last request's prompt as text, special tokens shown."""
    return tokenizer.decode(server.engine.requests[-1].prompt, skip_special_tokens=False)


def client_of(server: ScriptedServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300)
