"""Answers in the shape of messages: blocks, whole or as the events that tell of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult, call_id, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.format import AnswerFormat
from dllm_server.api.answers.frame import frame
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.message_body import (
    MadeCall,
    MessageBody,
    MessageUsage,
    SaidBlock,
    SaidText,
    SaidThoughts,
    StopReason,
)
from dllm_server.api.schemas.message_request import MessageGeneration
from dllm_server.api.text.parts import Called, Part, Said, Thought

Event = dict[str, Any]
_REASONS: dict[str, StopReason] = {"tool_calls": "tool_use", "length": "max_tokens", "stop": "end_turn"}


class MessageFormat(AnswerFormat[MessageGeneration]):
    id_prefix = "msg_"

    def __init__(self, header: AnswerHeader, asked: MessageGeneration) -> None:
        super().__init__(header, asked)
        self._blocks: list[SaidBlock] = []
        self._is_open = False  # the last block
        self._calls = 0

    def whole(self, results: Sequence[ChoiceResult]) -> MessageBody:
        (result,) = results
        self._add(result, result.parts)
        return self._body(result)

    def opening(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        (result,) = results
        begun = MessageBody(id=self.header.id, model=self.header.model, usage=_usage(result))
        return _frames([{"type": "message_start", "message": begun.model_dump(exclude={"dllm_stats"})}])

    def frames(self, results: Sequence[ChoiceResult], event: ChoiceDelta | ChoiceEnd) -> list[bytes]:
        result = results[event.index]
        result.add(event)
        return _frames(self._add(result, event.parts))

    def closing(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        (result,) = results
        ended = self._body(result).model_dump()
        delta = {name: ended[name] for name in ("stop_reason", "stop_sequence")}
        told = {"type": "message_delta", "delta": delta}
        told |= {name: ended[name] for name in ("usage", "dllm_stats")}
        return _frames([*self._close(), told, {"type": "message_stop"}])

    def failure(self, error: ApiError) -> bytes:
        return b"".join(_frames([error.message_body()]))

    def _add(self, result: ChoiceResult, parts: Iterable[Part]) -> list[Event]:
        events: list[Event] = []
        for part in parts:
            match part:
                case Called():
                    events += self._call(result, part)
                case Said(text):
                    events += self._extend(SaidText(text=""), "text_delta", text)
                case Thought(text):
                    events += self._extend(SaidThoughts(thinking=""), "thinking_delta", text)
        return events

    def _extend(self, fresh: SaidText | SaidThoughts, delta: str, text: str) -> list[Event]:
        events = []
        if not self._is_open or type(self._blocks[-1]) is not type(fresh):
            events = [*self._close(), self._opened(fresh)]
        block = self._blocks[-1]
        match block:
            case SaidText():
                block.text += text
            case SaidThoughts():
                block.thinking += text
        name = delta.removesuffix("_delta")
        return [*events, self._delta({"type": delta, name: text})]

    def _call(self, result: ChoiceResult, called: Called) -> list[Event]:
        """A call comes whole."""
        arguments = json.loads(called.arguments)
        made = MadeCall(id=call_id(result.plan, self._calls), name=called.name, input={})
        self._calls += 1
        events = [*self._close(), self._opened(made)]
        made.input = arguments
        events.append(self._delta({"type": "input_json_delta", "partial_json": called.arguments}))
        return [*events, *self._close()]

    def _opened(self, block: SaidBlock) -> Event:
        self._blocks.append(block)
        self._is_open = True
        index = len(self._blocks) - 1
        return {"type": "content_block_start", "index": index, "content_block": block.model_dump()}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _close(self) -> list[Event]:
        """End the block that is open, if one is."""
        if not self._is_open:
            return []
        self._is_open = False
        return [{"type": "content_block_stop", "index": len(self._blocks) - 1}]

    def _body(self, result: ChoiceResult) -> MessageBody:
        stop = result.stop_reason if isinstance(result.stop_reason, str) else None
        reason = _REASONS[result.finish_reason]
        return MessageBody(
            id=self.header.id,
            model=self.header.model,
            content=self._blocks,
            stop_reason="stop_sequence" if stop is not None and reason == "end_turn" else reason,
            stop_sequence=stop,
            usage=_usage(result),
            dllm_stats=stats_of([result]),
        )


def _usage(result: ChoiceResult) -> MessageUsage:
    usage = usage_of([result])
    details = usage.prompt_tokens_details
    cached = 0 if details is None else details.cached_tokens
    return MessageUsage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )


def _frames(events: Sequence[Event]) -> list[bytes]:
    return [frame(json.dumps(event, ensure_ascii=False), event["type"]) for event in events]
