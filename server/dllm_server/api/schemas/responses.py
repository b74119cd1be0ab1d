"""Bodies of the answers, in OpenAI's shapes plus ``dllm_stats`` and, when asked for, token ids."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from dllm_server.settings import DiffusionSettings

FinishName = Literal["stop", "length", "tool_calls"]


class Answer(BaseModel):
    """Leaves out the fields in ``left_out_when_none`` when they hold nothing; other nulls are written, as
    OpenAI does."""

    left_out_when_none: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _leave_out(self, serialise: SerializerFunctionWrapHandler) -> Any:
        content = serialise(self)
        for name in self.left_out_when_none:
            if content.get(name) is None:
                content.pop(name, None)
        return content


class PromptTokensDetails(BaseModel):
    cached_tokens: int = Field(description="Tokens of the prompts whose K/V were there already.")


class Usage(Answer):
    left_out_when_none = frozenset({"prompt_tokens_details"})

    prompt_tokens: int = Field(description="Tokens of the prompts, each counted once.")
    completion_tokens: int = Field(
        description="Generated tokens before EOS, up to the one that ends a stop string."
    )
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = Field(
        None, description="Of models whose requests share K/V, which block-causal ones do."
    )


class DllmStats(Answer):
    """What the answer took, summed over its choices."""

    left_out_when_none = frozenset({"refresh_passes", "prefill_passes"})

    forward_passes: int = Field(description="Forward passes that the requests took part in.")
    refresh_passes: int | None = Field(
        None, description="Those of them that refreshed K/V outside the block; of bidirectional models."
    )
    prefill_passes: int | None = Field(
        None,
        description="Those of them that computed tokens known before, a prompt's mostly; of block-causal "
        "models.",
    )
    tokens_per_forward: float = Field(description="Generated tokens / forward passes.")
    queue_seconds: float = Field(description="Seconds that the requests waited for admission.")


class ChoiceFields(Answer):
    """What every choice has, and what return_token_ids adds to it."""

    left_out_when_none = frozenset({"prompt_token_ids", "token_ids"})

    index: int
    finish_reason: FinishName | None = None
    stop_reason: str | int | None = Field(
        None, description="The stop string or the token of stop_token_ids that ended the choice, if one did."
    )
    prompt_token_ids: list[int] | None = Field(
        None, description="With return_token_ids: the prompt's tokens."
    )
    token_ids: list[int] | None = Field(None, description="With return_token_ids: the generated tokens.")


class ChatAlternative(BaseModel):
    token: str = Field(description="Text of the token.")
    logprob: float = Field(description="Its log confidence in the step that committed the position.")
    bytes: list[int] = Field(description="UTF-8 of its text.")


class ChatTokenLogprob(BaseModel):
    token: str = Field(description="Text that the token added; empty inside a character of several tokens.")
    logprob: float = Field(description="Log confidence when it was committed.")
    bytes: list[int] = Field(description="UTF-8 of that text.")
    top_logprobs: list[ChatAlternative] = Field(
        default=[], description="With top_logprobs: the likeliest tokens there, the likeliest first."
    )


class ChatLogprobs(BaseModel):
    content: list[ChatTokenLogprob]


class FunctionCall(BaseModel):
    name: str
    arguments: str = Field(description="JSON object, as text.")


class MessageToolCall(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class DeltaToolCall(MessageToolCall):
    """A call comes whole, in one chunk."""

    index: int


class AssistantMessage(Answer):
    left_out_when_none = frozenset({"reasoning_content", "tool_calls"})

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="Null where there are calls and no text.")
    refusal: None = None
    reasoning_content: str | None = Field(
        None, description="What stood in the thinking section, of templates that have one."
    )
    tool_calls: list[MessageToolCall] | None = None


class ChatChoice(ChoiceFields):
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    dllm_stats: DllmStats


class ChatDelta(Answer):
    left_out_when_none = frozenset({"role", "content", "reasoning_content", "tool_calls"})

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[DeltaToolCall] | None = None


class ChatChunkChoice(ChoiceFields):
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None


class Chunk(Answer):
    """Fields of every chunk; usage is null but on the last when it is asked for, dllm_stats comes with the
    end."""

    left_out_when_none = frozenset({"dllm_stats"})

    id: str
    created: int
    model: str
    usage: Usage | None = None
    dllm_stats: DllmStats | None = None


class ChatChunk(Chunk):
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChatChunkChoice]


class CompletionLogprobs(BaseModel):
    tokens: list[str] = Field(description="Text that each token added.")
    token_logprobs: list[float | None] = Field(
        description="Log confidence when it was committed; of an echoed prompt's token its share of the "
        "likelihood, null where it is given."
    )
    top_logprobs: list[dict[str, float] | None] = Field(
        description="The likeliest tokens there by their text (of two with the same, the likelier), and the "
        "chosen one."
    )
    text_offset: list[int] = Field(description="Where in the text each token's begins.")


class CompletionChoice(ChoiceFields):
    text: str
    logprobs: CompletionLogprobs | None = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    dllm_stats: DllmStats


class CompletionChunk(Chunk):
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class CanvasEvent(BaseModel):
    """Data of ``event: canvas``: the block being denoised. ``choices`` is empty for clients that know only
    chunks. What is None is left out."""

    id: str
    object: Literal["dllm.canvas"] = "dllm.canvas"
    created: int
    model: str
    choices: list[Any] = []
    index: int = Field(description="Choice whose block it is.")
    block_start: int = Field(description="Generated tokens before the block.")
    token_ids: list[int] = Field(description="Tokens of the block; -1 is masked.")
    text: str = Field(description="Text of the block, each masked token shown as \u2591.")
    forward_passes: int = Field(description="Forward passes so far.")
    phase: str = Field(
        description="Of the last: refresh or reuse; of block-causal models prefill or denoise."
    )
    token_texts: list[str | None] | None = Field(
        None,
        description="With include_canvas_confidence: each token's own text, empty of special tokens; null is "
        "masked.",
    )
    confidence: list[float | None] | None = Field(
        None,
        description="With include_canvas_confidence: each token's probability when it was committed, and of "
        "masked positions that of the likeliest, or drawn, token now; null where this pass looked at none.",
    )


class DecodingOptions(BaseModel):
    """What the diffusion object of a request may say to this model."""

    attention: Literal["bidirectional", "block_causal"]
    has_chat_template: bool = Field(description="Without one only /v1/completions takes text.")
    defaults: DiffusionSettings = Field(description="What a request gets that says nothing.")
    strategies: dict[str, float] = Field(
        description="Strategies that a request may name, each with its value where none is given."
    )
    refused: dict[str, str] = Field(description="Fields that are refused when they are given, and why.")
    most_retention_ratio: float = Field(description="Largest retention_ratio.")


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "dllm-serve"
    max_model_len: int = Field(description="Most tokens of a prompt and its completion together.")
    decoding: DecodingOptions


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Tokenized(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]


class Detokenized(BaseModel):
    prompt: str


class Health(BaseModel):
    status: str


class Version(BaseModel):
    version: str
