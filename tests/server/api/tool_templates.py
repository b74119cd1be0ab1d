"""Tokenizers whose chat templates know tools, and an engine that says what a test has it say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from dllm_server.engine.requests.messages import FinishReason, Generate
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import Tokenizer, load_tokenizer
from scripted_engine import Script, Step, block, finished
from scripted_server import ScriptedServer

MARKERS = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<|python_tag|>", "<|tool|>"]

_TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}CALL{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if thinks %}<think>\n{% endif %}{% endif %}"
)
HERMES = (
    "{% if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}Call them so: "
    "<tool_call>NAME AND ARGUMENTS</tool_call><|end|>{% endif %}"
    + _TURNS.replace("CALL", "<tool_call>{{ call.function | tojson }}</tool_call>")
)
LLAMA3 = (
    "{% if tools %}<|system|>{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}Say "
    '{"name": the name, "parameters": an object}<|end|>{% endif %}'
    + _TURNS.replace("CALL", '{"name": "{{ call.function.name }}"}')
)
UNKNOWN_CALLS = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}" + _TURNS
WITHOUT_TOOLS = _TURNS

LOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks around.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "Lyon"}}\n</tool_call>'


def make_tokenizer(directory: Path, template: str = HERMES, *, are_special: bool = True) -> Tokenizer:
    """The embedded model's, with ``template`` and the markers as tokens of their own."""
    tokenizer = json.loads((EMBEDDED_DIRECTORY / "tokenizer.json").read_text())
    known = {token["content"] for token in tokenizer["added_tokens"]}
    first = 1 + max(*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"]))
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    new = [name for name in MARKERS if name not in known]
    tokenizer["added_tokens"] += [
        {"id": first + place, "content": name, "special": are_special, **plain}
        for place, name in enumerate(new)
    ]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(directory)


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
