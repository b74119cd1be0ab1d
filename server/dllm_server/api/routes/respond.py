"""From a planned request to its response, streamed or whole; the generation is closed on every way out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from dllm_server.api.answers.answer import AnswerHeader, ChoiceResult
from dllm_server.api.answers.choice import ChoiceCanvas
from dllm_server.api.answers.format import AnswerFormat, Asked
from dllm_server.api.answers.generation import Generation
from dllm_server.api.answers.plan import Prompt, grammar_of, plan_choices
from dllm_server.api.guards.body_limit import ARRIVED
from dllm_server.api.routes.event_feed import EventFeed
from dllm_server.api.routes.event_stream import EventStream
from dllm_server.api.service import Service
from dllm_server.telemetry.request_id import request_id_of

UNENFORCED_HEADER = "X-DLLM-Unenforced"
_MOST_TOLD = 64
FIRST_WORD_SECONDS = 0.1  # of the engine: whether it refuses a request, before a stream's status line is sent

STREAM_DOCS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or with stream: true server-sent events: a chunk for each committed "
        "block, then 'data: [DONE]'. A failure after the first chunk is an event with an error object, "
        "which ends the stream.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


async def respond(
    service: Service,
    request: Request,
    asked: Asked,
    prompts: Sequence[Prompt],
    format_type: type[AnswerFormat[Asked]],
) -> Response:
    """Answer the prompts. ``ApiError`` says why there is no answer: refused, failed or timed out."""
    answer_id = f"{format_type.id_prefix}{request_id_of(request.scope)}"
    for held_to in {grammar_of(asked, prompt) for prompt in prompts}:
        await service.check_grammar(held_to)
    plans = plan_choices(asked, prompts, service.limits, request_id=answer_id)
    unenforced = [name for prompt in prompts for name in prompt.unenforced]
    told = {UNENFORCED_HEADER: ", ".join(unenforced[:_MOST_TOLD])} if unenforced else {}
    answer = format_type(AnswerHeader(answer_id, service.model_name), asked)
    generation = service.start_generation(plans, request.scope["state"][ARRIVED])
    is_handed_over = False
    try:
        if asked.stream:
            feed = await _opened_feed(generation)
            is_handed_over = True
            stream = EventStream(
                request,
                service.admission,
                generation,
                feed,
                answer,
                keep_alive_seconds=service.settings.stream_keep_alive_seconds,
            )
            stream.headers.update(told)
            return stream
        results = await _gather(generation)
        return Response(answer.whole(results).model_dump_json(), media_type="application/json", headers=told)
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
