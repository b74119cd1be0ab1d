"""Engines whose tokenizers grammars can follow, and requests with a grammar."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import msgspec
from byte_tokenizer import byte_model
from dllm_server.engine.engine import Engine
from dllm_server.engine.requests.messages import Generate
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import Tokenizer, load_tokenizer
from dllm_server.settings import Strategy
from dllm_server.structure.grammar import Grammar, GrammarKind
from engines import make_engine, make_request


@cache
def engine_of(family: str) -> Engine:
    directory = EMBEDDED_DIRECTORY if family == "embedded" else byte_model(family)
    return make_engine(directory, kv_pool_bytes=64 * 1024**2, max_num_batched_tokens=1024)


@cache
def tokenizer_of(family: str) -> Tokenizer:
    return load_tokenizer(EMBEDDED_DIRECTORY if family == "embedded" else byte_model(family))


def json_grammar(schema: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))


def guided(family: str, grammar: Grammar | None, request_id: str = "g", **changes: Any) -> Generate:
    """As the family decodes by default."""
    config = engine_of(family).runner.model.config
    fields = {"max_tokens": 160, "strategy": Strategy.THRESHOLD, "value": 0.5} | changes
    if config.block_causal is not None:
        fields["block_length"] = config.block_causal.block_length
    request = make_request(request_id, stop_token_ids=config.eos_token_ids, **fields)
    diffusion = request.diffusion
    if family == "llada21" and "strategy" not in changes:
        joint = {"strategy": Strategy.JOINT_THRESHOLD, "edit_threshold": 0.0, "max_post_edit_steps": 4}
        diffusion = msgspec.structs.replace(diffusion, **joint)
    if family == "fast_dllm_v2":
        size = config.block_causal.sub_block_length if config.block_causal else None
        diffusion = msgspec.structs.replace(diffusion, sub_block_length=size)
    return msgspec.structs.replace(request, grammar=grammar, diffusion=diffusion)
