"""Tokenizers and checkpoints whose chat templates know tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import Tokenizer, load_tokenizer

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


def make_tokenizer(
    directory: Path, template: str = HERMES, *, are_special: bool = True, markers: Sequence[str] = MARKERS
) -> Tokenizer:
    """The embedded model's, with ``template`` and the ``markers`` as tokens of their own, and no others."""
    tokenizer = json.loads((EMBEDDED_DIRECTORY / "tokenizer.json").read_text())
    kept = [token for token in tokenizer["added_tokens"] if token["content"] not in MARKERS]
    tokenizer["added_tokens"] = kept
    first = 1 + max(*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"]))
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"] += [
        {"id": first + place, "content": name, "special": are_special, **plain}
        for place, name in enumerate(markers)
    ]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(directory)


def make_model(directory: Path, template: str = HERMES) -> None:
    """A checkpoint of the embedded weights, which know nothing of the tools that its template shows."""
    make_tokenizer(directory, template)
    for file in EMBEDDED_DIRECTORY.iterdir():
        if not (directory / file.name).exists():
            (directory / file.name).symlink_to(file)
