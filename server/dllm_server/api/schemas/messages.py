"""Messages of a conversation, as clients write them and as they send answers back."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import ListOf, RequestModel, Text, one_of
from dllm_server.api.schemas.neutral_tables import IN_MESSAGES, IN_TEXT_PARTS
from dllm_server.api.schemas.tools import ToolCall

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class TextPart(RequestModel):
    neutral = IN_TEXT_PARTS
    only_if = MappingProxyType({"type": frozenset({"text"})})

    type: Annotated[Literal["text"], one_of({"text"}, "content part")]
    text: Text


def _as_parts(content: Any) -> Any:
    """A string as its one part; other shapes for validation to judge."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not content:
        raise ValueError("content is text or a non-empty list of text parts")
    return content


class ChatMessage(RequestModel):
    neutral = IN_MESSAGES
    only_if = MappingProxyType({"role": ROLES})

    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(
        description="Who speaks; developer is read as system, tool is a call's result."
    )
    content: Annotated[
        ListOf[TextPart], BeforeValidator(_as_parts, json_schema_input_type=Text | list[TextPart])
    ] = Field(
        default=[],
        description="Text, or a list of text parts, which are joined by newlines. Only an assistant's may be "
        "absent or null, which is read as no text.",
    )
    name: Text | None = Field(None, description="Name of the speaker, for chat templates that show it.")
    reasoning: Text | None = Field(None, description="Thoughts, for chat templates that show them.")
    reasoning_content: Text | None = Field(None, description="Older name of reasoning.")
    tool_calls: ListOf[ToolCall] = Field(default=[], description="Calls that an assistant made.")
    tool_call_id: Text | None = Field(None, description="The call whose result a tool's message is.")

    @model_validator(mode="after")
    def _only_an_assistant_may_say_nothing(self) -> Self:
        if not self.content and self.role != "assistant":
            raise PydanticCustomError("missing", "content is missing", {"param": "content"})
        return self

    @model_validator(mode="after")
    def _tools_are_called_and_answer(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError(
                "misplaced", "only allowed in an assistant's message", {"param": "tool_calls"}
            )
        if self.tool_call_id is not None and self.role != "tool":
            raise PydanticCustomError(
                "misplaced", "only allowed in a tool's message", {"param": "tool_call_id"}
            )
        return self

    @property
    def tool_field(self) -> str | None:
        """The field for which a template must know tools, if there is one."""
        if self.role == "tool":
            return "role"
        return "tool_calls" if self.tool_calls else None

    def for_template(self) -> dict[str, Any]:
        """The message as a chat template reads it: what it does not hold is not there."""
        reasoning = self.reasoning_content if self.reasoning is None else self.reasoning
        older = self.reasoning if self.reasoning_content is None else self.reasoning_content
        optional = {
            "name": self.name,
            "reasoning": reasoning,
            "reasoning_content": older,
            "tool_calls": [call.for_template() for call in self.tool_calls] or None,
            "tool_call_id": self.tool_call_id,
        }
        held = {name: value for name, value in optional.items() if value is not None}
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text} | held

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)

    @property
    def size(self) -> int:
        """Characters that a template is given, about."""
        thoughts = self.reasoning or self.reasoning_content or ""
        return len(self.text) + len(thoughts) + sum(call.size for call in self.tool_calls)
