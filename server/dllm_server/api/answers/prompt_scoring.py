"""A prompt scored in the engine: the passes of its plan, a bounded number of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dllm_server.api.answers.likelihood import Estimate, LikelihoodPlan, MaskedPass
from dllm_server.api.schemas.errors import ApiError, engine_dead, engine_failure, shutting_down
from dllm_server.engine.process.client import EngineClient, EngineDeadError
from dllm_server.engine.requests.messages import Failed, Finished, RequestStats, Score

MOST_TOKENS_AT_ONCE = 4096  # of a prompt's passes in the engine: about one step, so that others get theirs
MOST_PASSES_AT_ONCE = 16


class PromptScoring:
    """Scores ``token_ids``. However it ends, no pass stays in the engine."""

    def __init__(
        self,
        engine: EngineClient,
        token_ids: list[int],
        plan: LikelihoodPlan,
        *,
        request_id: str,
        top_logprobs: int,
    ) -> None:
        self._engine, self._token_ids, self._plan = engine, token_ids, plan
        self._request_id, self._top_logprobs = request_id, top_logprobs
        self._passes = 0
        self._queue_seconds = 0.0

    async def run(self) -> tuple[Estimate, RequestStats]:
        """The estimate and what it took; ``ApiError`` when a pass fails."""
        estimate, passes = Estimate(self._plan), self._plan.passes()
        at_once = max(1, min(MOST_TOKENS_AT_ONCE // max(self._plan.length, 1), MOST_PASSES_AT_ONCE))
        workers = [asyncio.create_task(self._work(passes, estimate)) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return estimate, RequestStats(self._passes, self._passes, self._queue_seconds)

    async def _work(self, passes: Iterator[MaskedPass], estimate: Estimate) -> None:
        for one in passes:  # which the workers share
            message = Score(
                f"{self._request_id}-{one.number}",
                self._token_ids,
                list(one.scored),
                one.masked_from,
                self._top_logprobs,
            )
            try:
                answer = await self._engine.score(message)
            except EngineDeadError as error:
                raise engine_dead() from error
            if isinstance(answer, Failed | Finished):
                raise _refusal(answer)
            estimate.add(one, answer.logprobs, answer.top_logprobs)
            self._passes += answer.stats.forward_passes
            self._queue_seconds += answer.stats.queue_seconds


def _refusal(answer: Failed | Finished) -> ApiError:
    return engine_failure(answer) if isinstance(answer, Failed) else shutting_down()
