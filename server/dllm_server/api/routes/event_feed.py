"""A generation's events, waited for in slices of time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from dllm_server.api.answers.choice import ChoiceEvent


class EventFeed:
    """Waiting for an event may be given up and taken up again; no event is lost by that. Close it."""

    def __init__(self, events: AsyncGenerator[ChoiceEvent]) -> None:
        self._events = events
        self._next: asyncio.Task[ChoiceEvent] | None = None

    async def peek(self, seconds: float) -> None:
        """Wait so long for the next event and keep it; ``ApiError`` if it turns out to be a failure."""
        if await self._has_come(seconds):
            self._expected().result()

    async def take(self, seconds: float) -> ChoiceEvent | None:
        """The next event, or None if it does not come in time. ``ApiError`` when the generation fails,
        ``StopAsyncIteration`` when it is over."""
        if not await self._has_come(seconds):
            return None
        event, self._next = self._expected().result(), None
        return event

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._events.aclose()

    async def _has_come(self, seconds: float) -> bool:
        done, _ = await asyncio.wait({self._expected()}, timeout=seconds)
        return bool(done)

    def _expected(self) -> asyncio.Task[ChoiceEvent]:
        if self._next is None:
            self._next = asyncio.create_task(anext(self._events))
        return self._next
