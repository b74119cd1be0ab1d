"""Turns of a Messages request, whose content is blocks, and the chat messages that they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import JsonObject, ListOf, RequestModel, Text, needs_of_kinds, one_of
from dllm_server.api.schemas.messages import ChatMessage
from dllm_server.api.schemas.neutral_tables import IN_MESSAGE_BLOCKS
from dllm_server.api.schemas.tools import CalledFunction, ToolCall

# What each kind of block needs, and who may say it.
_NEEDED = MappingProxyType(
    {
        "text": ("text",),
        "tool_use": ("id", "name", "input"),
        "tool_result": ("tool_use_id",),
        "thinking": ("thinking",),
        "redacted_thinking": (),
    }
)
_SPOKEN_BY = MappingProxyType(
    {
        "user": frozenset({"text", "tool_result"}),
        "assistant": frozenset({"text", "tool_use", "thinking", "redacted_thinking"}),
    }
)


def _as_blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class TextBlock(RequestModel):
    neutral = IN_MESSAGE_BLOCKS
    only_if = MappingProxyType({"type": frozenset({"text"})})

    type: Annotated[Literal["text"], one_of({"text"}, "content block")]
    text: Text


Texts = Annotated[
    ListOf[TextBlock], BeforeValidator(_as_blocks, json_schema_input_type=Text | list[TextBlock])
]


class Block(RequestModel):
    """A text, a call, its result, or thoughts; which of the fields it has depends on ``type``."""

    neutral = IN_MESSAGE_BLOCKS
    only_if = MappingProxyType({"type": frozenset(_NEEDED)})

    type: Annotated[str, one_of(_NEEDED, "content block")] = Field(
        description="text, tool_use, tool_result, thinking or redacted_thinking."
    )
    text: Text | None = Field(None, description="Of a text.")
    id: Text | None = Field(None, description="Of a call: the tool_use_id of its result.")
    name: Text | None = Field(None, description="Of a call: the tool.")
    input: JsonObject | None = Field(None, description="Of a call: its arguments.")
    tool_use_id: Text | None = Field(None, description="Of a result: the call.")
    content: Texts | None = Field(None, description="Of a result.")
    thinking: Text | None = Field(None, description="Of thoughts.")

    _has_what_it_needs = model_validator(mode="after")(needs_of_kinds(_NEEDED))


class Turn(RequestModel):
    role: Literal["user", "assistant"]
    content: Annotated[
        ListOf[Block],
        Field(min_length=1),
        BeforeValidator(_as_blocks, json_schema_input_type=Text | list[Block]),
    ]

    @model_validator(mode="after")
    def _each_says_what_it_may(self) -> Self:
        for place, block in enumerate(self.content):
            if block.type not in _SPOKEN_BY[self.role]:
                raise PydanticCustomError(
                    "misplaced",
                    "{kind} is not allowed in a message of this role",
                    {"kind": block.type, "param": f"content.{place}"},
                )
        return self

    def messages(self) -> Iterator[ChatMessage]:
        """An assistant's turn is one message; a user's has one for each result, and its texts between."""
        if self.role == "assistant":
            yield self._said()
            return
        for kind, run in groupby(self.content, key=lambda block: block.type):
            if kind == "text":
                yield ChatMessage(role="user", content=_joined(run))
            else:
                for block in run:
                    text = _joined(block.content or ())
                    yield ChatMessage(role="tool", content=text, tool_call_id=block.tool_use_id)

    def _said(self) -> ChatMessage:
        of = {kind: [block for block in self.content if block.type == kind] for kind in _NEEDED}
        calls = [
            ToolCall(id=block.id, function=CalledFunction(name=block.name or "", arguments=block.input or {}))
            for block in of["tool_use"]
        ]
        thoughts = "\n".join(block.thinking or "" for block in of["thinking"])
        return ChatMessage(
            role="assistant",
            content=_joined(of["text"]),
            reasoning_content=thoughts or None,
            tool_calls=calls,
        )


def messages_of(system: Sequence[TextBlock], turns: Sequence[Turn]) -> list[ChatMessage]:
    """The conversation as chat templates read it."""
    told = [ChatMessage(role="system", content=_joined(system))] if system else []
    return [*told, *(message for turn in turns for message in turn.messages())]


def _joined(blocks: Any) -> str:
    return "\n".join(block.text or "" for block in blocks)
