"""Bodies of the requests: OpenAI's fields that this server honours, and its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from dllm_server.api.schemas.base import Count, Flag, ListOf, Number, RequestModel, Text, TokenIds
from dllm_server.api.schemas.chat_template import TemplatedRequest
from dllm_server.api.schemas.messages import ChatMessage
from dllm_server.api.schemas.names import ShapedAs
from dllm_server.api.schemas.neutral_tables import IN_CHAT, IN_COMPLETIONS, IN_STREAM_OPTIONS, IN_TOKENIZE
from dllm_server.api.schemas.prompt_input import PromptInput, check_prompt
from dllm_server.api.schemas.structured import StructuredRequest
from dllm_server.api.schemas.tools import NamedTool, Tool, ToolChoice, check_forced_call
from dllm_server.settings import DiffusionSettings

MOST_STOPS = 64

StopString = Annotated[Text, Field(min_length=1, max_length=512)]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _unset_if_minus_one(value: object) -> object:
    return None if type(value) is int and value == -1 else value


# -1 is how some clients write "no limit of my own".
TokenLimit = Annotated[
    Count | None, BeforeValidator(_unset_if_minus_one, json_schema_input_type=Count | Literal[-1] | None)
]


Size = Annotated[int, Strict(), Field(ge=0)]
TokenLimitOrNone = Annotated[
    Size | None, BeforeValidator(_unset_if_minus_one, json_schema_input_type=Size | Literal[-1] | None)
]


class _DiffusionSchema:
    """Shows ``DiffusionSettings`` in the OpenAPI page; the object is validated once merged over the server's
    defaults."""

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(DiffusionSettings.__pydantic_core_schema__)


class StreamOptions(RequestModel):
    neutral = IN_STREAM_OPTIONS

    include_usage: Flag = Field(False, description="End the stream with a chunk of usage and no choices.")
    continuous_usage_stats: Flag = Field(False, description="Tell the usage up to here in every chunk.")
    include_canvas: Flag = Field(
        False,
        description="Also send 'event: canvas' with the block being denoised, after each forward pass. "
        "Such an event has 'object': 'dllm.canvas' and empty 'choices', so clients that know only chunks "
        "can skip it.",
    )
    include_canvas_confidence: Flag = Field(
        False,
        description="With include_canvas: canvas events also tell each position's token as a text, and its "
        "confidence.",
    )

    @model_validator(mode="after")
    def _confidence_belongs_to_the_canvas(self) -> Self:
        if self.include_canvas_confidence and not self.include_canvas:
            raise PydanticCustomError(
                "needs_canvas",
                "only allowed with include_canvas: true",
                {"param": "include_canvas_confidence"},
            )
        return self


class DecodingRequest(RequestModel):
    """Fields that all requests for an answer share."""

    model: Text | None = Field(
        None, description="Served model name (see /v1/models); the served one if absent."
    )
    stop: Annotated[
        ListOf[StopString],
        Field(max_length=MOST_STOPS),
        BeforeValidator(_as_list, json_schema_input_type=StopString | list[StopString]),
    ] = Field(default=[], description=f"Up to {MOST_STOPS} strings that end the text.")
    stop_token_ids: TokenIds = Field(
        default=[], description="Tokens that end the text besides EOS; they are not part of it."
    )
    min_tokens: Annotated[int, Strict(), Field(ge=0)] = Field(
        0, description="Neither EOS nor a stop token or string ends the text before so many tokens."
    )
    include_stop_str_in_output: Flag = Field(
        False, description="End the text with the stop string instead of before it."
    )
    skip_special_tokens: Flag = Field(True, description="Leave special tokens out of the text.")
    seed: Annotated[int, Strict(), Field(ge=-(2**63), lt=2**64)] | None = Field(
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
    cache_salt: Annotated[Text, Field(min_length=1)] | None = Field(
        None,
        description="Only requests of the same salt share K/V of what they begin with. For models that share "
        "them, which block-causal ones do.",
    )
    ignore_eos: Flag = Field(False, description="Generate max_tokens tokens whatever they are.")
    diffusion: Annotated[dict[str, Any], _DiffusionSchema, ShapedAs(DiffusionSettings)] = Field(
        default={},
        description="How the canvas is denoised; what is left out comes from the server's settings. "
        "retention_ratio may not exceed the server's.",
    )


class GenerationRequest(DecodingRequest, StructuredRequest):
    """Fields that chat and plain completions share."""

    prompt_param: ClassVar[str]  # field that holds the prompt
    limit_param: ClassVar[str] = "max_tokens"  # field that holds the most tokens to generate
    default_max_tokens: ClassVar[int]

    n: Annotated[int, Strict(), Field(ge=1, le=16)] = Field(
        1,
        description="Choices for each prompt. Choices differ only with temperature > 0 or random confidence.",
    )
    max_tokens: TokenLimit = Field(None, description="Most tokens to generate.")
    stream_options: StreamOptions | None = Field(None, description="Only with stream.")
    return_token_ids: Flag = Field(False, description="Add prompt_token_ids and token_ids to each choice.")
    return_tokens_as_token_ids: Flag = Field(
        False, description="In logprobs, write each token as 'token_id:ID' instead of its text."
    )

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> Self:
        if not self.stream and self.stream_options not in (None, StreamOptions()):
            raise ValueError("stream_options is only allowed with stream: true")
        return self

    @model_validator(mode="after")
    def _a_structure_ends_the_text(self) -> Self:
        if self.ignore_eos and self.asked_grammar is not None:
            raise PydanticCustomError(
                "needs_eos",
                f"cannot go with {self.asked_grammar.param}, which says where the text ends",
                {"param": "ignore_eos"},
            )
        return self

    @property
    def completion_limit(self) -> int | None:
        """Most tokens to generate, if the request says so."""
        return self.max_tokens

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's own likelihood is told."""
        return False

    @property
    def alternatives(self) -> int:
        """The likeliest tokens that are told for each position."""
        return 0

    @property
    def includes_canvas(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_canvas

    @property
    def includes_canvas_confidence(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_canvas_confidence

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def includes_usage_in_every_chunk(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats


class ChatCompletionRequest(GenerationRequest, TemplatedRequest):
    neutral = IN_CHAT
    prompt_param = "messages"
    default_max_tokens = 256

    messages: Annotated[ListOf[ChatMessage], Field(min_length=1)] = Field(
        description="The conversation, rendered with the model's chat template."
    )
    max_tokens: TokenLimit = Field(None, description="Older name of max_completion_tokens.")
    max_completion_tokens: TokenLimit = Field(
        None, description="Most tokens to generate; 256, or what the context leaves, if absent or -1."
    )
    reasoning_effort: Text | Number | None = Field(
        None, description="Given to the chat template, which may read it; nothing else does."
    )
    tool_choice: ToolChoice | None = Field(
        None,
        description="none: the answer calls no tool, and the prompt names none. auto, the default: it may. "
        "required: it calls one or more; a function's name: it calls this one, once.",
    )
    parallel_tool_calls: Flag = Field(True, description="Whether an answer may hold several calls.")
    include_reasoning: Flag = Field(True, description="Tell what the model thinks, where it does.")
    separate_reasoning: Flag = Field(
        True, description="Tell it as reasoning_content; false leaves it in the content."
    )
    logprobs: Flag = Field(False, description="Add each token's log confidence when it was committed.")
    top_logprobs: Annotated[int, Strict(), Field(ge=0, le=20)] = Field(
        0, description="With logprobs, the likeliest tokens at each position when it was committed: up to 20."
    )

    @model_validator(mode="after")
    def _alternatives_belong_to_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError(
                "needs_logprobs", "only allowed with logprobs: true", {"param": "top_logprobs"}
            )
        return self

    @model_validator(mode="after")
    def _a_forced_call_has_its_tool(self) -> Self:
        names = [tool.function.name for tool in self.tools]
        check_forced_call(self.tool_choice, names, ignores_eos=self.ignore_eos)
        return self

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens differ: send one of them")
        return self

    @property
    def completion_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def shown_tools(self) -> list[Tool]:
        return [] if self.tool_choice == "none" else self.tools

    @property
    def forced_tools(self) -> list[Tool]:
        """The tools of which the answer must call one, if it must."""
        match self.tool_choice:
            case "required":
                return self.tools
            case NamedTool(function=function):
                return [tool for tool in self.tools if tool.function.name == function.name][:1]
            case _:
                return []

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return effort | self.chat_template_kwargs

    @property
    def alternatives(self) -> int:
        return self.top_logprobs


class CompletionRequest(GenerationRequest):
    neutral = IN_COMPLETIONS
    prompt_param = "prompt"
    default_max_tokens = 16

    prompt: Annotated[
        PromptInput,
        PlainValidator(check_prompt, json_schema_input_type=Text | list[Text] | TokenIds | list[TokenIds]),
    ] = Field(description="Text, token ids, or a list of either; each is answered by n choices.")
    max_tokens: TokenLimitOrNone = Field(
        None,
        description="Most tokens to generate; 16, or what the context leaves, if absent or -1. 0 generates "
        "none, for an echo.",
    )
    add_special_tokens: Flag = Field(True, description="Add the tokenizer's own special tokens to a text.")
    echo: Flag = Field(
        False,
        description="Begin the text with the prompt; with logprobs, score it: see docs/api.md, Scoring.",
    )
    logprobs: Annotated[int, Strict(), Field(ge=0, le=5)] | None = Field(
        None,
        description="Add each token's log confidence when it was committed, and so many of the likeliest "
        "tokens there: up to 5.",
    )

    @model_validator(mode="after")
    def _nothing_is_generated_but_for_an_echo(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise PydanticCustomError(
                "needs_echo", "0 generates nothing: send echo: true as well", {"param": "max_tokens"}
            )
        return self

    @model_validator(mode="after")
    def _a_prompt_is_scored_once(self) -> Self:
        if self.n > 1 and (self.scores_prompt or self.max_tokens == 0):
            raise PydanticCustomError(
                "scored_once", "must be 1 where a prompt is scored or nothing generated", {"param": "n"}
            )
        return self

    @property
    def scores_prompt(self) -> bool:
        return self.echo and self.logprobs is not None

    @property
    def alternatives(self) -> int:
        return self.logprobs or 0


class TokenizeRequest(TemplatedRequest):
    neutral = IN_TOKENIZE

    model: Text | None = Field(None, description="Served model name; the served one if absent.")
    prompt: Text | None = Field(None, description="Text to tokenise; this or messages.")
    messages: Annotated[ListOf[ChatMessage], Field(min_length=1)] | None = Field(
        None, description="Conversation to render and tokenise."
    )
    add_special_tokens: Flag = Field(True, description="Add the tokenizer's own special tokens to a prompt.")

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("send either prompt or messages")
        return self


class DetokenizeRequest(RequestModel):
    model: Text | None = Field(None, description="Served model name; the served one if absent.")
    tokens: TokenIds = Field(description="Token ids, special ones included.")
