"""Bodies of the requests: OpenAI's fields that this server honours, and its own. Everything else is refused
by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    model_validator,
)
from pydantic_core import CoreSchema

from dllm_server.api.schemas.prompt_input import check_content, check_prompt
from dllm_server.api.schemas.unsupported import drop_neutral_message_fields, drop_neutral_parameters
from dllm_server.settings import DiffusionSettings

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict()]
TokenIds = list[Annotated[int, Strict(), Field(ge=0)]]
StopString = Annotated[str, Strict(), Field(min_length=1, max_length=512)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _DiffusionSchema:
    """Shows ``DiffusionSettings`` in the OpenAPI page; the object is validated once merged over the server's
    defaults."""

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(DiffusionSettings.__pydantic_core_schema__)


class RequestModel(BaseModel):
    """Refuses unknown fields; null means absent, as OpenAI's clients have it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {
            name: value for name, value in body.items() if value is not None or name not in cls.model_fields
        }


class TextPart(RequestModel):
    type: Literal["text"]
    text: Text


class ChatMessage(RequestModel):
    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="Who speaks; developer is read as system."
    )
    content: Annotated[str, PlainValidator(check_content, json_schema_input_type=Text | list[TextPart])] = (
        Field(description="Text, or a list of text parts, which are joined by newlines.")
    )
    name: Text | None = Field(None, description="Name of the speaker, for chat templates that show it.")

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_fields(cls, message: Any) -> Any:
        return drop_neutral_message_fields(message)


class StreamOptions(RequestModel):
    include_usage: Flag = Field(False, description="End the stream with a chunk of usage and no choices.")
    include_canvas: Flag = Field(
        False,
        description="Also send 'event: canvas' with the block being denoised, after each forward pass. "
        "Such an event has 'object': 'dllm.canvas' and empty 'choices', so clients that know only chunks "
        "can skip it.",
    )


class GenerationRequest(RequestModel):
    """Fields that chat and plain completions share."""

    model: Text | None = Field(
        None, description="Served model name (see /v1/models); the served one if absent."
    )
    n: Annotated[int, Strict(), Field(ge=1, le=16)] = Field(
        1,
        description="Choices for each prompt. Choices differ only with temperature > 0 or random confidence.",
    )
    stop: Annotated[
        list[StopString],
        Field(max_length=4),
        BeforeValidator(_as_list, json_schema_input_type=StopString | list[StopString]),
    ] = Field(default=[], description="Up to 4 strings that end the text; they are not part of it.")
    seed: Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)] | None = Field(
        None,
        description="Same seed, same text; drawn at random if absent. Choices use seeds derived from it.",
    )
    temperature: Annotated[float, Strict(), Field(ge=0, le=2)] = Field(
        0.0,
        description="0 (the default, unlike OpenAI's 1) is greedy, as diffusion models are evaluated; above, "
        "tokens are drawn with Gumbel noise while confidence comes from the clean logits.",
    )
    top_p: Annotated[float, Strict(), Field(gt=0, le=1)] = Field(
        1.0, description="Draw from the most probable tokens that reach this probability together."
    )
    top_k: Annotated[int, Strict(), Field(ge=-1)] = Field(
        0, description="Draw from this many most probable tokens; 0 or -1 for all."
    )
    stream: Flag = Field(False, description="Send server-sent events, a chunk for each committed block.")
    stream_options: StreamOptions | None = Field(None, description="Only with stream.")
    ignore_eos: Flag = Field(False, description="Generate max_tokens tokens whatever they are.")
    return_token_ids: Flag = Field(False, description="Add prompt_token_ids and token_ids to each choice.")
    diffusion: Annotated[dict[str, Any], _DiffusionSchema] = Field(
        default={},
        description="How the canvas is denoised; what is left out comes from the server's settings. "
        "retention_ratio may not exceed the server's.",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, body: Any) -> Any:
        return drop_neutral_parameters(body)

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed with stream: true")
        return self

    @property
    def includes_canvas(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_canvas

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionRequest(GenerationRequest):
    messages: Annotated[list[ChatMessage], Field(min_length=1)] = Field(
        description="The conversation, rendered with the model's chat template."
    )
    max_tokens: Count | None = Field(None, description="Older name of max_completion_tokens.")
    max_completion_tokens: Count | None = Field(
        None, description="Most tokens to generate; 256, or what the context leaves, if absent."
    )
    logprobs: Flag = Field(False, description="Add each token's log confidence when it was committed.")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ: send one of them")
        return self


class CompletionRequest(GenerationRequest):
    prompt: Annotated[
        list[str] | list[list[int]],
        PlainValidator(check_prompt, json_schema_input_type=Text | list[Text] | TokenIds | list[TokenIds]),
    ] = Field(description="Text, token ids, or a list of either; each is answered by n choices.")
    max_tokens: Count | None = Field(
        None, description="Most tokens to generate; 16, or what the context leaves, if absent."
    )
    echo: Flag = Field(False, description="Begin the text with the prompt.")
    logprobs: Annotated[int, Strict(), Field(ge=0, le=1)] | None = Field(
        None,
        description="0 or 1 adds each token's log confidence when it was committed, and no alternatives.",
    )

    @model_validator(mode="after")
    def _echo_has_no_logprobs(self) -> Self:
        if self.echo and self.logprobs is not None:
            raise ValueError("logprobs of an echoed prompt are not available: leave out echo or logprobs")
        return self


class TokenizeRequest(RequestModel):
    model: Text | None = Field(None, description="Served model name; the served one if absent.")
    prompt: Text | None = Field(None, description="Text to tokenise; this or messages.")
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = Field(
        None, description="Conversation to render and tokenise."
    )
    add_special_tokens: Flag = Field(True, description="Add the tokenizer's own special tokens to a prompt.")
    add_generation_prompt: Flag = Field(True, description="End a conversation where the answer begins.")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        return self


class DetokenizeRequest(RequestModel):
    model: Text | None = Field(None, description="Served model name; the served one if absent.")
    tokens: TokenIds = Field(description="Token ids, special ones included.")
