"""One choice from its plan to its end: the prompt scored, the answer generated, or both."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from dllm_server.api.answers.choice import ChoiceCanvas, ChoiceEnd, ChoiceEvent, DecodeTokens, run_generation
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.scored_prompt import score_prompt
from dllm_server.engine.process.client import EngineClient
from dllm_server.engine.requests.messages import RequestStats


async def run_choice(
    engine: EngineClient, decode_tokens: DecodeTokens, plan: ChoicePlan
) -> AsyncGenerator[ChoiceEvent]:
    """The choice's events up to ``ChoiceEnd``, with the counts of all that was done; ``ApiError`` if it
    fails. However this ends, nothing of it stays in the engine."""
    spent = RequestStats()
    if plan.scoring is not None:
        event = await score_prompt(engine, decode_tokens, plan)
        spent = event.stats
        yield event
    if plan.generate is None:
        yield ChoiceEnd(plan.index, (), "length", None, spent)
        return
    async with aclosing(run_generation(engine, decode_tokens, plan, plan.generate)) as events:
        async for word in events:
            yield word if isinstance(word, ChoiceCanvas) else replace(word, stats=spent.plus(word.stats))
