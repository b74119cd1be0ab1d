"""Items of a Responses request's ``input``, and the messages that they are."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from dllm_server.api.schemas.base import JsonObject, ListOf, RequestModel, Text, needs_of_kinds, one_of
from dllm_server.api.schemas.messages import ChatMessage
from dllm_server.api.schemas.neutral_tables import IN_RESPONSE_ITEMS, IN_TEXT_PARTS
from dllm_server.api.schemas.tools import CalledFunction, ToolCall, read_arguments

_TEXTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})


class InputText(RequestModel):
    neutral = IN_TEXT_PARTS
    only_if = MappingProxyType({"type": _TEXTS})

    type: Annotated[str, one_of(_TEXTS, "content part")] = Field(
        description="input_text, output_text, text, reasoning_text or summary_text."
    )
    text: Text


def _as_parts(content: Any) -> Any:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


Texts = Annotated[
    ListOf[InputText], BeforeValidator(_as_parts, json_schema_input_type=Text | list[InputText])
]

# What each kind of item needs.
_NEEDED = MappingProxyType(
    {
        "message": ("role", "content"),
        "function_call": ("call_id", "name", "arguments"),
        "function_call_output": ("call_id", "output"),
        "reasoning": (),
    }
)


class InputItem(RequestModel):
    """A message, a call, its result, or thoughts; which of the fields it has depends on ``type``."""

    neutral = IN_RESPONSE_ITEMS

    type: Annotated[str, one_of(_NEEDED, "item")] = Field(
        "message", description="message, function_call, function_call_output or reasoning."
    )
    role: Literal["system", "developer", "user", "assistant"] | None = Field(
        None, description="Of a message: who speaks; developer is read as system."
    )
    content: Texts | None = Field(None, description="Of a message or of thoughts.")
    call_id: Text | None = Field(None, description="Of a call and of its result.")
    name: Text | None = Field(None, description="Of a call: the function.")
    arguments: Annotated[JsonObject, BeforeValidator(read_arguments, json_schema_input_type=Text)] | None = (
        Field(None, description="Of a call: a JSON object, as text.")
    )
    output: Texts | None = Field(None, description="Of a call's result.")

    _has_what_it_needs = model_validator(mode="after")(needs_of_kinds(_NEEDED))

    @property
    def call(self) -> ToolCall:
        function = CalledFunction(name=self.name or "", arguments=self.arguments or {})
        return ToolCall(id=self.call_id, function=function)

    @staticmethod
    def text_of(parts: Sequence[InputText] | None) -> str:
        return "\n".join(part.text for part in parts or ())


class _Turn:
    """An assistant's turn while its items come: thoughts, then content, then calls."""

    def __init__(self) -> None:
        self._thoughts: str | None = None
        self._content: str | None = None
        self._calls: list[ToolCall] = []

    def takes(self, item: InputItem) -> bool:
        """Whether the item belongs to it."""
        match item.type:
            case "reasoning":
                return self._thoughts is None and self._content is None and not self._calls
            case "message":
                return item.role == "assistant" and self._content is None and not self._calls
            case kind:
                return kind == "function_call"

    def add(self, item: InputItem) -> None:
        match item.type:
            case "reasoning":
                self._thoughts = item.text_of(item.content)
            case "message":
                self._content = item.text_of(item.content)
            case _:
                self._calls.append(item.call)

    def message(self) -> ChatMessage | None:
        if self._content is None and not self._calls and not self._thoughts:
            return None
        return ChatMessage(
            role="assistant",
            content=self._content or "",
            reasoning_content=self._thoughts or None,
            tool_calls=self._calls,
        )


def messages_of(items: Sequence[InputItem]) -> list[ChatMessage]:
    """The conversation: what an assistant thinks, says and calls one after another is one message."""
    messages: list[ChatMessage] = []
    turn = _Turn()
    for item in items:
        if not turn.takes(item):
            messages += [said] if (said := turn.message()) is not None else []
            turn = _Turn()
        if turn.takes(item):
            turn.add(item)
        elif item.type == "function_call_output":
            output = item.text_of(item.output)
            messages.append(ChatMessage(role="tool", content=output, tool_call_id=item.call_id))
        else:
            messages.append(ChatMessage(role=item.role or "user", content=item.text_of(item.content)))
    return [*messages, *([said] if (said := turn.message()) is not None else [])]
