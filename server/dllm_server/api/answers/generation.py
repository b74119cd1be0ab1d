"""All choices of one API request, running side by side in the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from dllm_server.api.answers.choice import ChoiceDelta, ChoiceEnd, ChoiceEvent, DecodeTokens
from dllm_server.api.answers.choice_run import run_choice
from dllm_server.api.answers.plan import ChoicePlan
from dllm_server.api.answers.scored_prompt import PromptScored
from dllm_server.api.schemas.errors import ApiError, internal_error, timed_out
from dllm_server.engine.process.client import EngineClient
from dllm_server.telemetry.request_metrics import RequestMetrics
from dllm_server.telemetry.request_trace import trace_choice

log = structlog.get_logger(__name__)


class Generation:
    """Runs the choices and merges their events in the order in which they come. ``arrived_seconds`` is when
    the request was there, on the monotonic clock.

    ``close`` must be called however the request ends: it cancels what still runs, so that the engine frees
    its pages.
    """

    def __init__(
        self,
        engine: EngineClient,
        decode: DecodeTokens,
        plans: Sequence[ChoicePlan],
        metrics: RequestMetrics,
        *,
        arrived_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self.plans = plans
        self._engine, self._decode, self._metrics = engine, decode, metrics
        self._timeout_seconds = timeout_seconds
        self._arrived_seconds = arrived_seconds
        self._deadline = asyncio.get_running_loop().time() + timeout_seconds
        self._queue: asyncio.Queue[ChoiceEvent | ApiError] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def open_choices(self) -> int:
        """Choices that still have, or will have, a request in the engine."""
        return len(self.plans) - sum(task.done() for task in self._tasks)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._pump(plan)) for plan in self.plans]

    async def events(self) -> AsyncGenerator[ChoiceEvent]:
        """Events until every choice has ended; ``ApiError`` when one fails or the time is up."""
        open_choices = len(self.plans)
        while open_choices:
            event = await self._next_event()
            open_choices -= isinstance(event, ChoiceEnd)
            yield event

    def fail(self, error: ApiError) -> None:
        """End ``events`` with this error, after what it has already been given."""
        self._queue.put_nowait(error)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next_event(self) -> ChoiceEvent:
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._queue.get()
        except TimeoutError:
            raise timed_out(self._timeout_seconds) from None
        if isinstance(event, ApiError):
            raise event
        return event

    async def _pump(self, plan: ChoicePlan) -> None:
        model = self._engine.model.name
        trace = trace_choice(plan.generate, plan.index, len(plan.prompt.token_ids), model)
        try:
            self._metrics.submitted(len(plan.prompt.token_ids))
            has_block, scoring_wait = False, 0.0
            async with aclosing(run_choice(self._engine, self._decode, plan)) as events:
                async for event in events:
                    self._queue.put_nowait(event)
                    elapsed = time.monotonic() - self._arrived_seconds
                    is_generated = plan.generate is not None and not isinstance(event, PromptScored)
                    if is_generated and not has_block and isinstance(event, ChoiceDelta | ChoiceEnd):
                        has_block = True  # an empty answer's is the one that it ended in
                        self._metrics.first_block(elapsed, event.stats.queue_seconds - scoring_wait)
                    match event:
                        case PromptScored():
                            scoring_wait = event.stats.queue_seconds
                            if trace is not None:
                                trace.scored()
                        case ChoiceDelta():
                            self._metrics.generated(len(event.token_ids))
                            if trace is not None:
                                trace.block(event.stats, len(event.token_ids))
                        case ChoiceEnd():
                            self._metrics.finished(event.finish_reason, elapsed)
                            if trace is not None:
                                trace.end(event.finish_reason, event.stats)
        except ApiError as error:
            if trace is not None:
                trace.fail(error.reason)
            self._queue.put_nowait(error)
        except Exception:
            log.exception("choice failed", choice=plan.index)
            bug = internal_error()
            if trace is not None:
                trace.fail(bug.reason)
            self._queue.put_nowait(bug)
        finally:
            if trace is not None:
                trace.close()
