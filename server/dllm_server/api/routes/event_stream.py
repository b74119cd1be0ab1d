"""A generation as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult
from dllm_server.api.answers.choice import ChoiceCanvas
from dllm_server.api.answers.format import AnswerFormat
from dllm_server.api.answers.frame import frame
from dllm_server.api.answers.generation import Generation
from dllm_server.api.guards.admission import Admission
from dllm_server.api.routes.event_feed import EventFeed
from dllm_server.api.schemas.errors import ApiError, internal_error
from dllm_server.api.schemas.responses import CanvasEvent
from dllm_server.telemetry.request_metrics import outcome_of

log = structlog.get_logger(__name__)

_KEEP_ALIVE = b": keep-alive\n\n"


class EventStream(StreamingResponse):
    """Streams a generation's events and closes it however the response ends, even before it began.

    The status line is sent at once. Whenever nothing else was sent for ``keep_alive_seconds`` there is a
    comment, so that nobody on the way takes the connection for dead.
    """

    def __init__(
        self,
        request: Request,
        admission: Admission,
        generation: Generation,
        feed: EventFeed,
        answer: AnswerFormat[Any],
        *,
        keep_alive_seconds: float,
    ) -> None:
        self._state = request.state
        self._admission = admission
        self._generation = generation
        self._feed = feed
        self._answer = answer
        self._keep_alive_seconds = keep_alive_seconds
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(self._body(), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._state.outcome = "cancelled"  # until the body has been sent
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._feed.close()
            await self._admission.finish(self._generation)

    async def _body(self) -> AsyncGenerator[bytes]:
        # The status line is out: an error can only be an event, which ends the stream.
        try:
            async for frame in self._frames():
                yield frame
            self._state.outcome = "success"
        except ApiError as error:
            yield self._error_frame(error)
        except Exception:
            log.exception("stream failed")
            yield self._error_frame(internal_error())

    async def _frames(self) -> AsyncGenerator[bytes]:
        results = [ChoiceResult(plan) for plan in self._generation.plans]
        for data in self._answer.opening(results):
            yield data
        while not all(result.has_ended for result in results):
            event = await self._feed.take(self._keep_alive_seconds)
            if event is None:
                yield _KEEP_ALIVE
                continue
            if isinstance(event, ChoiceCanvas):
                yield canvas_frame(event, self._answer.header)
                continue
            for data in self._answer.frames(results, event):
                yield data
        for data in self._answer.closing(results):
            yield data

    def _error_frame(self, error: ApiError) -> bytes:
        self._state.outcome = outcome_of(error.status)
        self._state.refusal = error.told()
        return self._answer.failure(error)


def canvas_frame(event: ChoiceCanvas, header: AnswerHeader) -> bytes:
    canvas = CanvasEvent.model_construct(  # ours: there is nothing to check
        id=header.id,
        created=header.created,
        model=header.model,
        index=event.index,
        block_start=event.block_start,
        token_ids=event.token_ids,
        text=event.text,
        forward_passes=event.forward_passes,
        phase=event.phase,
        token_texts=event.token_texts,
        confidence=event.confidence,
    )
    return frame(canvas.model_dump_json(exclude_none=True), "canvas")
