"""A scored prompt as a choice tells it: its tokens with their shares of the estimate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import cache

from dllm_server.api.answers.choice import ChoiceDelta, DecodeTokens
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.prompt_scoring import PromptScoring
from dllm_server.api.answers.token import Alternative, GeneratedToken, Token
from dllm_server.api.text.detokenizer import Detokenizer
from dllm_server.engine.process.client import EngineClient

_TOKENS_AT_A_TIME = 64  # between two looks at what else the event loop has to do


@dataclass(frozen=True, slots=True)
class PromptScored(ChoiceDelta):
    """The prompt's tokens, before anything is generated: first those that are given, then those scored."""

    given: list[Token]
    scored: list[GeneratedToken]


async def score_prompt(engine: EngineClient, decode_tokens: DecodeTokens, plan: ChoicePlan) -> PromptScored:
    """Score the plan's prompt; ``ApiError`` if that fails."""
    assert plan.scoring is not None, "the plan scores its prompt"  # noqa: S101
    token_ids = plan.prompt.token_ids
    scoring = PromptScoring(
        engine,
        token_ids,
        plan.scoring.likelihood,
        request_id=f"{plan.scoring.request_id}-prompt",
        top_logprobs=plan.scoring.top_logprobs,
    )
    estimate, stats = await scoring.run()

    @cache
    def text_of(token_id: int) -> str:
        return decode_tokens([token_id], skip_special_tokens=False)

    detokenizer = Detokenizer(lambda ids: decode_tokens(ids, skip_special_tokens=False))
    event = PromptScored(plan.index, (), [], stats, given=[], scored=[])
    for position, (token_id, score) in enumerate(zip(token_ids, estimate.scores(), strict=True)):
        if position % _TOKENS_AT_A_TIME == 0:
            await asyncio.sleep(0)
        text = detokenizer.push(token_id)
        if position == len(token_ids) - 1:
            text += detokenizer.flush()
        if score is None:
            event.given.append(Token(token_id, text))
            continue
        likeliest = (
            Alternative(other, text if other == token_id else text_of(other), logprob)
            for other, logprob in score.likeliest
        )
        event.scored.append(GeneratedToken(token_id, text, score.logprob, tuple(likeliest)))
    return event
