"""Tools of a request, which of them the answer is to call, and calls that a conversation holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import Flag, JsonObject, RequestModel, Text, one_of
from dllm_server.api.schemas.neutral_tables import IN_TOOL_CALLS, IN_TOOLS

IS_FUNCTION = MappingProxyType({"type": frozenset({"function"})})


FunctionKind = Annotated[Literal["function"], one_of({"function"}, "tool")]


class FunctionDefinition(RequestModel):
    name: Annotated[Text, Field(pattern=r"^[\w.:/-]{1,128}$")] = Field(
        description="Name: up to 128 letters, digits and any of _.:/-"
    )
    description: Text | None = Field(None, description="What it does, for the model.")
    parameters: JsonObject | None = Field(None, description="JSON schema of its arguments.")
    strict: Flag | None = Field(None, description="Whether arguments are to follow the schema exactly.")


class Tool(RequestModel):
    neutral = IN_TOOLS
    only_if = IS_FUNCTION

    type: FunctionKind
    function: FunctionDefinition

    def for_template(self) -> dict[str, Any]:
        """The tool as chat templates read it."""
        return self.model_dump(exclude_none=True, exclude={"function": {"strict"}})

    @property
    def loosened(self) -> Self:
        """The tool with any object of arguments."""
        return self.model_copy(update={"function": self.function.model_copy(update={"parameters": None})})

    @property
    def size(self) -> int:
        """Characters that a template is given, about."""
        return len(str(self.function))


class NamedFunction(RequestModel):
    name: Text


class NamedTool(RequestModel):
    """The choice of one tool."""

    type: Literal["function"]
    function: NamedFunction


ToolMode = Literal["none", "auto", "required"]


def _check_choice(choice: Any) -> ToolMode | NamedTool:
    if choice in ("none", "auto", "required"):
        mode: ToolMode = choice
        return mode
    try:
        named = choice["function"]["name"]
        is_named = choice["type"] == "function" and isinstance(named, str)
    except (TypeError, KeyError):
        is_named = False
    if not is_named:
        raise PydanticCustomError(
            "unsupported_parameter",
            "not supported: send 'none', 'auto', 'required' or an object with type 'function' and the "
            "function's name",
        )
    return NamedTool.model_validate(choice)


ToolChoice = Annotated[
    ToolMode | NamedTool, PlainValidator(_check_choice, json_schema_input_type=ToolMode | NamedTool)
]


def check_forced_call(
    choice: ToolMode | NamedTool | None, names: Sequence[str], *, ignores_eos: bool
) -> None:
    """``PydanticCustomError`` where a call is to be made and no tool is there for it, or no end."""
    if choice in (None, "none", "auto"):
        return
    if not names:
        raise PydanticCustomError("needs_tools", "only allowed with tools", {"param": "tool_choice"})
    if ignores_eos:
        raise PydanticCustomError(
            "needs_eos", "cannot go with a tool_choice that says where the text ends", {"param": "ignore_eos"}
        )
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise PydanticCustomError("unknown_tool", "names none of tools", {"param": "tool_choice"})


def read_arguments(arguments: Any) -> Any:
    """Arguments as the object that their text is: templates write it in their own way."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError("not a JSON object") from error


class CalledFunction(RequestModel):
    name: Text
    arguments: Annotated[JsonObject, BeforeValidator(read_arguments, json_schema_input_type=Text)] = Field(
        description="JSON object, as text."
    )


class ToolCall(RequestModel):
    """A call that an assistant's message holds."""

    neutral = IN_TOOL_CALLS
    only_if = IS_FUNCTION

    id: Text | None = Field(None, description="The tool_call_id of the message with its result.")
    type: FunctionKind = "function"
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)

    @property
    def size(self) -> int:
        """Characters that a template is given, about."""
        return len(str(self.function))
