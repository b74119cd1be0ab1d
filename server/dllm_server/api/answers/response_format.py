"""Answers in the shape of responses."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult, stats_of, usage_of
from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd
from dllm_server.api.answers.format import AnswerFormat
from dllm_server.api.answers.frame import frame
from dllm_server.api.answers.response_writer import Event, ResponseWriter
from dllm_server.api.schemas.errors import ApiError
from dllm_server.api.schemas.response_body import (
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    ResponseBody,
    ResponseError,
    ResponseUsage,
)
from dllm_server.api.schemas.response_request import ResponseGeneration


class ResponseFormat(AnswerFormat[ResponseGeneration]):
    id_prefix = "resp_"

    def __init__(self, header: AnswerHeader, asked: ResponseGeneration) -> None:
        super().__init__(header, asked)
        response = asked.response
        choice = response.tool_choice
        self._begun = ResponseBody(
            id=header.id,
            created_at=header.created,
            instructions=response.instructions,
            max_output_tokens=response.max_output_tokens,
            metadata=response.metadata,
            model=header.model,
            parallel_tool_calls=response.parallel_tool_calls,
            reasoning={"effort": response.reasoning.effort, "summary": None},
            temperature=response.temperature,
            text={"format": response.text.format},
            tool_choice="auto" if choice is None else choice if isinstance(choice, str) else dict(choice),
            tools=[tool.model_dump() for tool in response.tools],
            top_p=response.top_p,
        )
        self._writer = ResponseWriter(self._begun)

    def whole(self, results: Sequence[ChoiceResult]) -> ResponseBody:
        (result,) = results
        self._writer.add(result.parts)
        self._writer.end(self._ended(result))
        return self._writer.response

    def opening(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        return _frames(self._writer.begin())

    def frames(self, results: Sequence[ChoiceResult], event: ChoiceDelta | ChoiceEnd) -> list[bytes]:
        results[event.index].add(event)
        return _frames(self._writer.add(event.parts))

    def closing(self, results: Sequence[ChoiceResult]) -> list[bytes]:
        (result,) = results
        return _frames(self._writer.end(self._ended(result)))

    def failure(self, error: ApiError) -> bytes:
        told = error.body.error
        failed = ResponseError(code=told.code or told.type, message=told.message)
        ended = self._begun.model_copy(update={"status": "failed", "error": failed})
        return b"".join(_frames(self._writer.end(ended)))

    def _ended(self, result: ChoiceResult) -> ResponseBody:
        usage = usage_of([result])
        details = usage.prompt_tokens_details
        is_cut = result.finish_reason == "length"
        return self._begun.model_copy(
            update={
                "status": "incomplete" if is_cut else "completed",
                "completed_at": None if is_cut else int(time.time()),
                "incomplete_details": IncompleteDetails() if is_cut else None,
                "usage": ResponseUsage(
                    input_tokens=usage.prompt_tokens,
                    input_tokens_details=InputTokensDetails(
                        cached_tokens=0 if details is None else details.cached_tokens
                    ),
                    output_tokens=usage.completion_tokens,
                    output_tokens_details=OutputTokensDetails(reasoning_tokens=result.thought_tokens),
                    total_tokens=usage.total_tokens,
                ),
                "dllm_stats": stats_of([result]),
            }
        )


def _frames(events: Sequence[Event]) -> list[bytes]:
    return [frame(json.dumps(event, ensure_ascii=False), event["type"]) for event in events]
