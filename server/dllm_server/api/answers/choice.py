"""One choice of an answer: an engine request's events turned into text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Protocol, cast

from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.token import Alternative, GeneratedToken
from dllm_server.api.schemas.errors import engine_dead, engine_failure, shutting_down
from dllm_server.api.schemas.responses import FinishName
from dllm_server.api.text.parts import Part, content_of
from dllm_server.api.text.speech import Speech
from dllm_server.api.text.stream import ChoiceText
from dllm_server.engine.process.client import EngineClient, EngineDeadError, RequestEvent
from dllm_server.engine.requests.messages import (
    BlockCommitted,
    CanvasUpdate,
    Failed,
    Finished,
    FinishReason,
    Generate,
    RequestStats,
)

MASKED = "\u2591"
MOST_RUNS = 256


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A committed block: what may be shown now, and its tokens up to a stop string's end."""

    index: int
    parts: tuple[Part, ...]
    tokens: list[GeneratedToken]
    stats: RequestStats

    @property
    def text(self) -> str:
        """The content among the parts."""
        return content_of(self.parts)

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]


@dataclass(frozen=True, slots=True)
class ChoiceCanvas:
    """The block being denoised; a masked position is -1 in ``token_ids`` and a shade in ``text``. What may be
    None is there where confidence is asked for; a masked position has no text of its own."""

    index: int
    block_start: int
    token_ids: list[int]
    text: str
    forward_passes: int
    phase: str
    token_texts: list[str | None] | None = None
    confidence: list[float | None] | None = None


@dataclass(frozen=True, slots=True)
class ChoiceEnd:
    """The last event of a choice, with what was held back until now."""

    index: int
    parts: tuple[Part, ...]
    finish_reason: FinishName
    stop_reason: str | int | None  # the stop string, or the request's own stop token, that ended it
    stats: RequestStats
    stop_token: GeneratedToken | None = None  # EOS, or the request's own stop token, by its own text

    @property
    def text(self) -> str:
        """The content among the parts."""
        return content_of(self.parts)


ChoiceEvent = ChoiceDelta | ChoiceCanvas | ChoiceEnd
DecodeRun = Callable[[tuple[int, ...]], str]


class DecodeTokens(Protocol):
    """What is needed of a tokenizer."""

    def __call__(
        self,
        token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        kept: Collection[int] = (),
    ) -> str: ...


async def run_generation(
    engine: EngineClient, decode_tokens: DecodeTokens, plan: ChoicePlan, generate: Generate
) -> AsyncGenerator[ChoiceEvent]:
    """Send the engine request and yield its events up to ``ChoiceEnd``; ``ApiError`` if it fails.

    A stop string, or the only call that the answer may hold, ends the choice with the counts of the block
    that completed it, and cancels the engine request. However this ends, the engine request is closed.
    """
    markup = plan.prompt.markup
    decode = partial(decode_tokens, skip_special_tokens=plan.skips_special_tokens, kept=markup.kept_tokens)
    speech = Speech(markup)
    text = ChoiceText(decode, plan.stops, shows_stop=plan.shows_stop, first_scanned=generate.min_tokens)
    # Most of a canvas is as it was a forward pass before.
    decode_run = lru_cache(MOST_RUNS)(lambda run: decode(list(run)))
    events = cast("AsyncGenerator[RequestEvent]", engine.generate(generate))
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case CanvasUpdate():
                        yield canvas_of(
                            event, plan.index, decode_run, has_confidence=generate.wants_confidence
                        )
                    case BlockCommitted():
                        piece = text.push(event.token_ids)
                        tokens = _tokens(event, piece.token_texts, decode_tokens)
                        yield ChoiceDelta(plan.index, speech.push(piece.text), tokens, event.stats)
                        if piece.stop is not None or speech.is_over:
                            parts = speech.flush()
                            reason: FinishName = "tool_calls" if speech.has_called else "stop"
                            yield ChoiceEnd(plan.index, parts, reason, piece.stop, event.stats)
                            return
                    case Finished():
                        if event.reason is FinishReason.CANCELLED:
                            raise shutting_down()  # nobody here asked for it
                        piece = text.flush()
                        parts = (*speech.push(piece.text), *speech.flush())
                        is_stop = piece.stop is not None or event.reason is FinishReason.STOP
                        reason = "tool_calls" if speech.has_called else "stop"
                        yield ChoiceEnd(
                            plan.index,
                            parts,
                            reason if is_stop else "length",
                            piece.stop or _own_stop(event, plan),
                            event.stats,
                            _stop_token(event, decode_tokens),
                        )
                        return
                    case Failed():
                        raise engine_failure(event)
    except EngineDeadError as error:
        raise engine_dead() from error
    raise engine_dead()  # the stream of events broke off


def _tokens(event: BlockCommitted, texts: Sequence[str], decode_tokens: DecodeTokens) -> list[GeneratedToken]:
    """The block's tokens up to the last one that has a text."""
    tokens = []
    for place, text in enumerate(texts):
        chosen = Alternative(event.token_ids[place], text, event.logprobs[place])
        likeliest = event.top_logprobs[place] if event.top_logprobs else ()
        tokens.append(_generated(chosen, likeliest, decode_tokens))
    return tokens


def _own_stop(event: Finished, plan: ChoicePlan) -> int | None:
    """The request's own stop token that ended it; EOS is nobody's own."""
    return (
        event.stop.token_id if event.stop is not None and event.stop.token_id in plan.stop_token_ids else None
    )


def _stop_token(event: Finished, decode_tokens: DecodeTokens) -> GeneratedToken | None:
    if event.stop is None:
        return None
    text = decode_tokens([event.stop.token_id], skip_special_tokens=False)
    chosen = Alternative(event.stop.token_id, text, event.stop.logprob)
    return _generated(chosen, event.stop.top_logprobs, decode_tokens)


def _generated(
    chosen: Alternative, likeliest: Sequence[tuple[int, float]], decode_tokens: DecodeTokens
) -> GeneratedToken:
    """``chosen`` with the tokens that were ``likeliest`` at its place; among them it is the same to the last
    digit and letter, so that readers find it again."""
    alternatives = (
        chosen
        if token_id == chosen.id
        else Alternative(token_id, decode_tokens([token_id], skip_special_tokens=False), log_confidence)
        for token_id, log_confidence in likeliest
    )
    return GeneratedToken(chosen.id, chosen.text, chosen.log_confidence, tuple(alternatives))


def canvas_of(update: CanvasUpdate, index: int, decode: DecodeRun, *, has_confidence: bool) -> ChoiceCanvas:
    """The update with its texts; each token's own where confidence is asked for."""
    runs = groupby(update.token_ids, key=lambda token_id: token_id < 0)
    text = "".join(MASKED * len(list(run)) if is_masked else decode(tuple(run)) for is_masked, run in runs)
    start, passes = update.block_start, update.forward_passes
    canvas = ChoiceCanvas(index, start, update.token_ids, text, passes, update.phase)
    if not has_confidence:
        return canvas
    token_texts = [decode((token_id,)) if token_id >= 0 else None for token_id in update.token_ids]
    return replace(canvas, token_texts=token_texts, confidence=update.confidence)
