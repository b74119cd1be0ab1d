"""One choice of an answer: an engine request's events turned into text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Protocol, cast

from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.token import Alternative, GeneratedToken
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
    Generate,
    RequestStats,
)

MASKED = "\u2591"


@dataclass(frozen=True, slots=True)
class ChoiceDelta:
    """A committed block: the text that may be shown now, and its tokens up to a stop string's end."""

    index: int
    text: str
    tokens: list[GeneratedToken]
    stats: RequestStats

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
    """The last event of a choice, with the text that was held back until now."""

    index: int
    text: str
    finish_reason: FinishName
    stop_reason: str | int | None  # the stop string, or the request's own stop token, that ended it
    stats: RequestStats
    stop_token: GeneratedToken | None = None  # EOS, or the request's own stop token, by its own text


ChoiceEvent = ChoiceDelta | ChoiceCanvas | ChoiceEnd


class DecodeTokens(Protocol):
    """What is needed of a tokenizer."""

    def __call__(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...


async def run_generation(
    engine: EngineClient, decode_tokens: DecodeTokens, plan: ChoicePlan, generate: Generate
) -> AsyncGenerator[ChoiceEvent]:
    """Send the engine request and yield its events up to ``ChoiceEnd``; ``ApiError`` if it fails.

    A stop string ends the choice with the counts of the block that completed it, and cancels the engine
    request. However this ends, the engine request is closed.
    """
    decode = partial(decode_tokens, skip_special_tokens=plan.skips_special_tokens)
    text = ChoiceText(decode, plan.stops, shows_stop=plan.shows_stop, first_scanned=generate.min_tokens)
    texts_of: dict[int, str] = {}
    events = cast("AsyncGenerator[RequestEvent]", engine.generate(generate))
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case CanvasUpdate():
                        canvas = _canvas(event, plan.index, decode)
                        if generate.wants_confidence:
                            token_texts = _texts(event.token_ids, texts_of, decode)
                            canvas = replace(canvas, token_texts=token_texts, confidence=event.confidence)
                        yield canvas
                    case BlockCommitted():
                        piece = text.push(event.token_ids)
                        tokens = _tokens(event, piece.token_texts, decode_tokens)
                        yield ChoiceDelta(plan.index, piece.text, tokens, event.stats)
                        if piece.stop is not None:
                            yield ChoiceEnd(plan.index, "", "stop", piece.stop, event.stats)
                            return
                    case Finished():
                        if event.reason is FinishReason.CANCELLED:
                            raise shutting_down()  # nobody here asked for it
                        piece = text.flush()
                        is_stop = piece.stop is not None or event.reason is FinishReason.STOP
                        reason: FinishName = "stop" if is_stop else "length"
                        yield ChoiceEnd(
                            plan.index,
                            piece.text,
                            reason,
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


def _canvas(update: CanvasUpdate, index: int, decode: Decode) -> ChoiceCanvas:
    runs = groupby(update.token_ids, key=lambda token_id: token_id < 0)
    text = "".join(MASKED * len(list(run)) if is_masked else decode(list(run)) for is_masked, run in runs)
    return ChoiceCanvas(
        index, update.block_start, update.token_ids, text, update.forward_passes, update.phase
    )


def _texts(token_ids: Sequence[int], known: dict[int, str], decode: Decode) -> list[str | None]:
    """Each token by itself; None where it is masked. What has been decoded before is ``known``."""
    known.update(
        {token_id: decode([token_id]) for token_id in token_ids if token_id >= 0 and token_id not in known}
    )
    return [known.get(token_id) for token_id in token_ids]
