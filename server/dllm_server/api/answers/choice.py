"""One choice of an answer: an engine request's events turned into text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.schemas.errors import engine_dead, engine_failure, shutting_down
from dllm_server.api.schemas.responses import FinishName
from dllm_server.api.text.detokenizer import Decode
from dllm_server.api.text.stream import ChoiceText
from dllm_server.engine.process.client import EngineClient, EngineDeadError, RequestEvent
from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    Failed,
    Finished,
    FinishReason,
    RequestStats,
)

MASKED = "\u2591"


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A committed block: the text that may be shown now, and its tokens up to a stop string's end."""

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[float]
    token_texts: list[str]  # what each token added
    stats: RequestStats


@dataclass(frozen=True, slots=True)
class ChoiceCanvas:
    """The block being denoised; a masked position is -1 in ``token_ids`` and a shade in ``text``."""

    index: int
    block_start: int
    token_ids: list[int]
    text: str
    forward_passes: int


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The last event of a choice, with the text that was held back until now."""

    index: int
    text: str
    finish_reason: FinishName
    completion_tokens: int
    stats: RequestStats


ChoiceEvent = ChoiceDelta | ChoiceCanvas | ChoiceEnd


async def run_choice(engine: EngineClient, decode: Decode, plan: ChoicePlan) -> AsyncGenerator[ChoiceEvent]:
    """Send the engine request and yield its events up to ``ChoiceEnd``; ``ApiError`` if it fails.

    A stop string ends the choice with the counts of the block that completed it, and cancels the engine
    request. However this ends, the engine request is closed.
    """
    text = ChoiceText(decode, plan.stops)
    completion_tokens = 0
    events = cast("AsyncGenerator[RequestEvent]", engine.generate(plan.generate))
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case CanvasUpdate():
                        yield _canvas(event, plan.index, decode)
                    case BlockCommitted():
                        piece = text.push(event.token_ids)
                        accepted = len(piece.token_texts)
                        completion_tokens += accepted
                        yield ChoiceDelta(
                            plan.index,
                            piece.text,
                            event.token_ids[:accepted],
                            event.logprobs[:accepted],
                            piece.token_texts,
                            event.stats,
                        )
                        if piece.is_stopped:
                            yield ChoiceEnd(plan.index, "", "stop", completion_tokens, event.stats)
                            return
                    case Finished():
                        if event.reason is FinishReason.CANCELLED:
                            raise shutting_down()  # nobody here asked for it
                        piece = text.flush()
                        is_stop = piece.is_stopped or event.reason is FinishReason.STOP
                        reason: FinishName = "stop" if is_stop else "length"
                        yield ChoiceEnd(plan.index, piece.text, reason, completion_tokens, event.stats)
                        return
                    case Failed():
                        raise engine_failure(event)
    except EngineDeadError as error:
        raise engine_dead() from error
    raise engine_dead()  # the stream of events broke off


def _canvas(update: CanvasUpdate, index: int, decode: Decode) -> ChoiceCanvas:
    runs = groupby(update.token_ids, key=lambda token_id: token_id < 0)
    text = "".join(MASKED * len(list(run)) if is_masked else decode(list(run)) for is_masked, run in runs)
    return ChoiceCanvas(index, update.block_start, update.token_ids, text, update.forward_passes)
