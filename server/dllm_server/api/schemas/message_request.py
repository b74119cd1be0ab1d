"""Bodies of requests to /v1/messages, and the chat request that answers one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import Count, Flag, JsonObject, ListOf, RequestModel, Text
from dllm_server.api.schemas.message_blocks import Texts, Turn, messages_of
from dllm_server.api.schemas.neutral_tables import IN_MESSAGE_TOOLS, IN_MESSAGES_API
from dllm_server.api.schemas.requests import MOST_STOPS, ChatCompletionRequest, DecodingRequest, StopString
from dllm_server.api.schemas.tools import (
    FunctionDefinition,
    NamedFunction,
    NamedTool,
    Tool,
    ToolMode,
    check_forced_call,
)

_MODES: Mapping[str, ToolMode] = {"auto": "auto", "any": "required", "none": "none"}


def _check_tool(kind: object) -> object:
    if kind not in (None, "custom"):
        raise PydanticCustomError(
            "unsupported_parameter", "tool {kind} is not supported: only custom", {"kind": repr(kind)}
        )
    return kind


class MessageTool(RequestModel):
    neutral = IN_MESSAGE_TOOLS

    type: Annotated[Literal["custom"] | None, BeforeValidator(_check_tool)] = None
    name: Annotated[Text, Field(pattern=r"^[\w.:/-]{1,128}$")]
    description: Text | None = Field(None, description="What it does, for the model.")
    input_schema: JsonObject = Field(description="JSON schema of its arguments.")
    strict: Flag | None = Field(None, description="Whether arguments are to follow the schema exactly.")

    def for_chat(self) -> Tool:
        function = FunctionDefinition(
            name=self.name, description=self.description, parameters=self.input_schema, strict=self.strict
        )
        return Tool(type="function", function=function)


class MessageToolChoice(RequestModel):
    type: Literal["auto", "any", "none", "tool"]
    name: Text | None = Field(None, description="Of type tool: which.")
    disable_parallel_tool_use: Flag = Field(False, description="The answer holds one call at most.")

    @model_validator(mode="after")
    def _a_tool_has_a_name(self) -> Self:
        if (self.type == "tool") != (self.name is not None):
            raise PydanticCustomError("misplaced", "belongs to type tool", {"param": "name"})
        return self

    def for_chat(self) -> ToolMode | NamedTool:
        if self.name is not None:
            return NamedTool(type="function", function=NamedFunction(name=self.name))
        return _MODES[self.type]


class Conversation(RequestModel):
    """What a prompt is made of."""

    messages: Annotated[ListOf[Turn], Field(min_length=1)] = Field(
        description="Turns of user and assistant; an assistant's at the end is continued."
    )
    system: Texts = Field(default=[], description="A system message before the conversation.")
    tools: ListOf[MessageTool] = Field(default=[], description="Tools that the answer may call.")
    tool_choice: MessageToolChoice = Field(
        default=MessageToolChoice(type="auto"),
        description="auto: the answer may call tools; any: it does; tool: it calls this one.",
    )

    @model_validator(mode="after")
    def _a_forced_call_has_its_tool(self) -> Self:
        names = [tool.name for tool in self.tools]
        check_forced_call(self.tool_choice.for_chat(), names, ignores_eos=False)
        return self

    def chat_fields(self) -> dict[str, Any]:
        return {
            "messages": messages_of(self.system, self.messages),
            "tools": [tool.for_chat() for tool in self.tools],
            "tool_choice": self.tool_choice.for_chat(),
            "parallel_tool_calls": not self.tool_choice.disable_parallel_tool_use,
            "continue_final_message": self.messages[-1].role == "assistant",
        }


class CountRequest(Conversation):
    neutral = IN_MESSAGES_API

    model: Text | None = Field(None, description="Served model name; the served one if absent.")

    def for_chat(self) -> MessageGeneration:
        """A chat request with the same prompt."""
        return MessageGeneration.model_construct(**self.chat_fields())


class MessagesRequest(Conversation, DecodingRequest):
    neutral: ClassVar = IN_MESSAGES_API

    max_tokens: Count = Field(description="Most tokens to generate.")
    stop_sequences: Annotated[ListOf[StopString], Field(max_length=MOST_STOPS)] = Field(
        default=[], description="Strings that end the text."
    )

    def for_chat(self) -> MessageGeneration:
        """The chat request that answers this one."""
        shared = {name: getattr(self, name) for name in DecodingRequest.model_fields}
        shared["stop"] = [*self.stop, *self.stop_sequences]
        return MessageGeneration.model_construct(
            **shared, **self.chat_fields(), max_completion_tokens=self.max_tokens
        )


class MessageGeneration(ChatCompletionRequest):
    """A chat request whose faults are told in the words of the Messages API."""

    limit_param = "max_tokens"

    def message_path(self, place: int, name: str) -> str:
        return "messages"  # turns and messages are not one to one
