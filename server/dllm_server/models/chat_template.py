"""What a checkpoint's chat template can show, found out by rendering a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_PROBE = "probe_of_tools"


@dataclass(frozen=True, slots=True)
class TemplateLook:
    """``text`` of the template that is used where a request has tools; ``shows_tools``: it renders them."""

    text: str = ""
    shows_tools: bool = False


def look_at_template(fast: Any) -> TemplateLook:
    """What the template of a tokenizer of transformers can show; nothing where it has none."""
    if not fast.chat_template:
        return TemplateLook()
    tool = {
        "type": "function",
        "function": {
            "name": _PROBE,
            "description": "",
            "parameters": {"type": "object", "properties": {}, "required": []},
        },
    }
    try:
        text = str(fast.get_chat_template(tools=[tool]))
        rendered = fast.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tools=[tool], tokenize=False, add_generation_prompt=True
        )
    except Exception:  # a template is a program: it may fail in any way
        return TemplateLook(str(fast.chat_template))
    return TemplateLook(text, _PROBE in str(rendered))
