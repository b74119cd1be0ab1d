"""What a request says of the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from dllm_server.api.schemas.base import Flag, ListOf, RequestModel, check_json
from dllm_server.api.schemas.tools import Tool

# The renderer's own: a request gives them beside chat_template_kwargs, or not at all.
RESERVED_ARGUMENTS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "processor_kwargs",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "self",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


def _check_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a template can be given and whose text UTF-8 can encode."""
    for name in arguments.keys() & RESERVED_ARGUMENTS:
        raise PydanticCustomError("reserved_argument", "the renderer sets it itself", {"param": name})
    return check_json(arguments)


ChatTemplateArguments = Annotated[dict[str, Any], AfterValidator(_check_arguments)]


class TemplatedRequest(RequestModel):
    prompt_param: ClassVar[str] = "messages"  # field that holds the conversation

    add_generation_prompt: Flag | None = Field(
        None, description="End the prompt where the answer begins; true unless continue_final_message is."
    )
    continue_final_message: Flag = Field(
        False, description="Leave the last message open, so that the answer goes on with it."
    )
    tools: ListOf[Tool] = Field(
        default=[], description="Functions that the answer may call, given to the model's chat template."
    )
    chat_template_kwargs: ChatTemplateArguments = Field(
        default={}, description="Further arguments of the model's chat template, which may read them."
    )

    @model_validator(mode="after")
    def _prompt_ends_once(self) -> Self:
        if self.add_generation_prompt and self.continue_final_message:
            raise PydanticCustomError(
                "ends_twice",
                "only allowed with add_generation_prompt: false",
                {"param": "continue_final_message"},
            )
        return self

    @property
    def adds_generation_prompt(self) -> bool:
        if self.add_generation_prompt is None:
            return not self.continue_final_message
        return self.add_generation_prompt

    def message_path(self, place: int, name: str) -> str:
        """The path of a message's field in the request's body."""
        return f"{self.prompt_param}.{place}.{name}"

    @property
    def shown_tools(self) -> list[Tool]:
        """The tools that the template is given."""
        return self.tools

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        return self.chat_template_kwargs
