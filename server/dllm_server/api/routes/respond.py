"""From a planned request to its response, streamed or whole; the generation is closed on every way out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from fastapi import Request
from fastapi.responses import Response

from dllm_server.api.answers.answer import AnswerFormat, ChoiceResult
from dllm_server.api.answers.choice import ChoiceCanvas
from dllm_server.api.answers.generation import Generation
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.routes.event_feed import EventFeed
from dllm_server.api.routes.event_stream import EventStream
from dllm_server.api.schemas.requests import GenerationRequest
from dllm_server.api.service import Service
from dllm_server.telemetry.request_id import request_id_of

FIRST_WORD_SECONDS = 0.1  # of the engine: whether it refuses a request, before a stream's status line is sent


def answer_id(request: Request, prefix: str) -> str:
    """The id in an answer's body: the request's own behind ``prefix`` (``chatcmpl`` or ``cmpl``)."""
    return f"{prefix}-{request_id_of(request.scope)}"


async def respond(
    service: Service,
    request: Request,
    asked: GenerationRequest,
    plans: Sequence[ChoicePlan],
    answer: AnswerFormat,
) -> Response:
    """Run the plans. ``ApiError`` says why there is no answer: refused, failed or timed out."""
    generation = service.start_generation(plans)
    is_handed_over = False
    try:
        if asked.stream:
            feed = await _opened_feed(generation)
            is_handed_over = True
            return EventStream(
                request,
                service.admission,
                generation,
                feed,
                answer,
                includes_usage=asked.includes_usage,
                keep_alive_seconds=service.settings.stream_keep_alive_seconds,
            )
        results = await _gather(generation)
        return Response(answer.whole(results).model_dump_json(), media_type="application/json")
    finally:
        if not is_handed_over:
            await service.admission.finish(generation)


async def _opened_feed(generation: Generation) -> EventFeed:
    """The generation's events; ``ApiError`` for what the engine refuses at once, which keeps its own
    status."""
    feed = EventFeed(generation.events())
    try:
        await feed.peek(FIRST_WORD_SECONDS)
    except BaseException:
        await feed.close()
        raise
    return feed


async def _gather(generation: Generation) -> list[ChoiceResult]:
    results = [ChoiceResult(plan) for plan in generation.plans]
    async with aclosing(generation.events()) as events:
        async for event in events:
            if not isinstance(event, ChoiceCanvas):
                results[event.index].add(event)
    return results
