"""Messages of a conversation, as clients write them and as they send answers back."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import ListOf, RequestModel, Text
from dllm_server.api.schemas.neutral_tables import IN_MESSAGES, IN_TEXT_PARTS

ROLES = frozenset({"system", "developer", "user", "assistant"})


class TextPart(RequestModel):
    neutral = IN_TEXT_PARTS
    only_if = MappingProxyType({"type": frozenset({"text"})})

    type: Literal["text"]
    text: Text

    @field_validator("type", mode="before")
    @classmethod
    def _is_text(cls, kind: object) -> object:
        if kind != "text":
            raise PydanticCustomError(
                "unsupported_parameter",
                "content part {kind} is not supported: only text",
                {"kind": repr(kind)},
            )
        return kind


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

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="Who speaks; developer is read as system."
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

    @model_validator(mode="after")
    def _only_an_assistant_may_say_nothing(self) -> Self:
        if not self.content and self.role != "assistant":
            raise PydanticCustomError("missing", "content is missing", {"param": "content"})
        return self

    def for_template(self) -> dict[str, str]:
        """The message as a chat template reads it: what it does not hold is not there."""
        reasoning = self.reasoning_content if self.reasoning is None else self.reasoning
        older = self.reasoning if self.reasoning_content is None else self.reasoning_content
        optional = {"name": self.name, "reasoning": reasoning, "reasoning_content": older}
        held = {name: value for name, value in optional.items() if value is not None}
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text} | held

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)
