"""Bodies of the answers of /v1/messages."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from dllm_server.api.schemas.responses import DllmStats

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class SaidText(BaseModel):
    type: Literal["text"] = "text"
    text: str
    citations: None = None


class SaidThoughts(BaseModel):
    type: Literal["thinking"] = "thinking"
    thinking: str
    signature: str = ""


class MadeCall(BaseModel):
    type: Literal["tool_use"] = "tool_use"
    id: str = Field(description="Names the call in the tool_result with its result.")
    name: str
    input: dict[str, Any]


SaidBlock = SaidText | SaidThoughts | MadeCall


class MessageUsage(BaseModel):
    input_tokens: int = Field(description="Prompt tokens whose K/V were not there already.")
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = Field(0, description="Those whose K/V were.")
    output_tokens: int = Field(description="Generated tokens before EOS.")


class MessageBody(BaseModel):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[SaidBlock] = []
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: MessageUsage
    dllm_stats: DllmStats | None = Field(None, description="What the answer took; null until it has ended.")


class CountedTokens(BaseModel):
    input_tokens: int
