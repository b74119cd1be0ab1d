"""Body of a request to /v1/responses, and the chat request that answers it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import Count, Flag, JsonObject, ListOf, RequestModel, Text
from dllm_server.api.schemas.chat_template import ChatTemplateArguments
from dllm_server.api.schemas.messages import ChatMessage
from dllm_server.api.schemas.neutral_tables import (
    IN_REASONING,
    IN_RESPONSE_STREAM_OPTIONS,
    IN_RESPONSE_TEXT,
    IN_RESPONSE_TOOLS,
    IN_RESPONSES,
)
from dllm_server.api.schemas.requests import ChatCompletionRequest, DecodingRequest
from dllm_server.api.schemas.response_items import InputItem, messages_of
from dllm_server.api.schemas.structured import AskedGrammar
from dllm_server.api.schemas.tools import (
    IS_FUNCTION,
    FunctionDefinition,
    FunctionKind,
    NamedFunction,
    NamedTool,
    Tool,
    ToolMode,
    check_forced_call,
)
from dllm_server.structure.grammar import ANY_OBJECT, Grammar, GrammarKind


def _as_items(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class FunctionTool(FunctionDefinition):
    neutral = IN_RESPONSE_TOOLS
    only_if = IS_FUNCTION

    type: FunctionKind

    def for_chat(self) -> Tool:
        function = {name: getattr(self, name) for name in FunctionDefinition.model_fields}
        return Tool(type="function", function=FunctionDefinition(**function))


class NamedChoice(RequestModel):
    type: Literal["function"]
    name: Text


def _check_choice(choice: Any) -> ToolMode | NamedChoice:
    if choice in ("none", "auto", "required"):
        mode: ToolMode = choice
        return mode
    if not isinstance(choice, Mapping) or choice.get("type") != "function":
        raise PydanticCustomError(
            "unsupported_parameter",
            "not supported: send 'none', 'auto', 'required' or an object with type 'function' and the "
            "function's name",
        )
    return NamedChoice.model_validate(choice)


class ReasoningOptions(RequestModel):
    neutral = IN_REASONING

    effort: Text | None = Field(
        None, description="Given to the chat template as reasoning_effort, which may read it."
    )


_OF_FORMATS = MappingProxyType(
    {
        "text": frozenset({"type"}),
        "json_object": frozenset({"type"}),
        "json_schema": frozenset({"type", "name", "description", "schema", "strict"}),
    }
)


def _check_format(given: dict[str, Any]) -> dict[str, Any]:
    kind = str(given.get("type"))
    if kind not in _OF_FORMATS:
        raise PydanticCustomError(
            "unsupported_parameter", "not supported: send text, json_object or json_schema", {"param": "type"}
        )
    for name in given.keys() - _OF_FORMATS[kind]:
        raise PydanticCustomError("extra_forbidden", "is not known here", {"param": name})
    if kind == "json_schema" and not isinstance(given.get("schema"), dict):
        raise PydanticCustomError("schema_missing", "is to be a JSON schema", {"param": "schema"})
    return given


class TextOptions(RequestModel):
    neutral = IN_RESPONSE_TEXT

    format: Annotated[JsonObject, AfterValidator(_check_format)] = Field(
        default={"type": "text"},
        description="type text, json_object, or json_schema with a schema, which is always enforced.",
    )

    @property
    def grammar(self) -> AskedGrammar | None:
        """What the text is held to."""
        match self.format["type"]:
            case "json_object":
                return AskedGrammar("text.format", ANY_OBJECT)
            case "json_schema":
                schema = json.dumps(self.format["schema"], ensure_ascii=False)
                return AskedGrammar("text.format.schema", Grammar(GrammarKind.JSON_SCHEMA, schema))
            case _:
                return None


class ResponseStreamOptions(RequestModel):
    neutral = IN_RESPONSE_STREAM_OPTIONS


class ResponsesRequest(DecodingRequest):
    neutral = IN_RESPONSES

    input: Annotated[
        ListOf[InputItem],
        Field(min_length=1),
        BeforeValidator(_as_items, json_schema_input_type=Text | list[InputItem]),
    ] = Field(description="A question, or the conversation: messages, calls of tools and their results.")
    instructions: Text | None = Field(None, description="A system message before the conversation.")
    max_output_tokens: Count | None = Field(
        None, description="Most tokens to generate; 256, or what the context leaves, if absent."
    )
    tools: ListOf[FunctionTool] = Field(default=[], description="Functions that the answer may call.")
    tool_choice: (
        Annotated[
            ToolMode | NamedChoice,
            PlainValidator(_check_choice, json_schema_input_type=ToolMode | NamedChoice),
        ]
        | None
    ) = Field(
        None,
        description="none: the answer calls no tool. auto, the default: it may. required: it calls one or "
        "more; a function's name: it calls this one, once.",
    )
    parallel_tool_calls: Flag = Field(True, description="Whether an answer may hold several calls.")
    reasoning: ReasoningOptions = Field(default=ReasoningOptions(), description="How the model thinks.")
    text: TextOptions = Field(default=TextOptions(), description="What the text is like.")
    store: Flag = Field(True, description="Nothing is stored, whatever it says; the answer tells false.")
    stream_options: ResponseStreamOptions | None = Field(None, description="Only with stream.")
    metadata: JsonObject = Field(default={}, description="Told in the answer.")
    chat_template_kwargs: ChatTemplateArguments = Field(
        default={}, description="Further arguments of the model's chat template, which may read them."
    )

    @model_validator(mode="after")
    def _a_forced_call_has_its_tool(self) -> Self:
        names = [tool.name for tool in self.tools]
        check_forced_call(self._choice_for_chat(), names, ignores_eos=self.ignore_eos)
        return self

    @model_validator(mode="after")
    def _a_structure_ends_the_text(self) -> Self:
        if self.ignore_eos and self.text.grammar is not None:
            raise PydanticCustomError(
                "needs_eos",
                "cannot go with text.format, which says where the text ends",
                {"param": "ignore_eos"},
            )
        return self

    def _choice_for_chat(self) -> ToolMode | NamedTool | None:
        if isinstance(self.tool_choice, NamedChoice):
            return NamedTool(type="function", function=NamedFunction(name=self.tool_choice.name))
        return self.tool_choice

    def for_chat(self) -> ResponseGeneration:
        """The chat request that answers this one."""
        shared = {name: getattr(self, name) for name in DecodingRequest.model_fields}
        told = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        return ResponseGeneration.model_construct(
            **shared,
            messages=[*told, *messages_of(self.input)],
            max_completion_tokens=self.max_output_tokens,
            tools=[tool.for_chat() for tool in self.tools],
            tool_choice=self._choice_for_chat(),
            parallel_tool_calls=self.parallel_tool_calls,
            reasoning_effort=self.reasoning.effort,
            chat_template_kwargs=self.chat_template_kwargs,
            response=self,
        )


class ResponseGeneration(ChatCompletionRequest):
    """A chat request whose faults are told in the words of ``response``."""

    prompt_param = "input"
    limit_param = "max_output_tokens"

    response: ResponsesRequest

    @property
    def asked_grammar(self) -> AskedGrammar | None:
        return self.response.text.grammar

    def message_path(self, place: int, name: str) -> str:
        return "input"  # items and messages are not one to one
