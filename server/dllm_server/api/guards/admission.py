"""Which requests the server takes: a bounded number open in the engine at once, none while it shuts down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dllm_server.api.answers.generation import Generation
from dllm_server.api.guards.lifecycle import Lifecycle, ServingState
from dllm_server.api.schemas.errors import ApiError, engine_dead, invalid_request, queue_full, shutting_down


class Admission:
    """Knows the open generations. All choices of a request are taken or none.

    A request waits when more engine requests are open than the engine has slots, so at most ``slots() +
    max_queued_requests`` may be open.
    """

    def __init__(self, lifecycle: Lifecycle, max_queued_requests: int, slots: Callable[[], int]) -> None:
        self._lifecycle = lifecycle
        self._max_queued_requests = max_queued_requests
        self._slots = slots
        self._open: set[Generation] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def open_choices(self) -> int:
        return sum(generation.open_choices for generation in self._open)

    def check(self, choices: int) -> None:
        """Raise the ``ApiError`` that refuses a request of so many choices now, if one does."""
        match self._lifecycle.state:
            case ServingState.DRAINING:
                raise shutting_down()
            case ServingState.FAILED:
                raise engine_dead()
        most = self._slots() + self._max_queued_requests
        if choices > most:
            raise invalid_request(
                f"the request asks for {choices} choices, but this server holds {most} at once: "
                "send fewer prompts or a smaller n",
                param="n",
            )
        if self.open_choices + choices > most:
            raise queue_full(self._max_queued_requests)

    def start(self, generation: Generation) -> None:
        """Take the generation and start it; ``ApiError`` if it cannot be taken."""
        self.check(len(generation.plans))
        self._open.add(generation)
        self._is_idle.clear()
        generation.start()

    async def finish(self, generation: Generation) -> None:
        """Close the generation, whatever became of it."""
        try:
            await generation.close()
        finally:
            self._open.discard(generation)
            if not self._open:
                self._is_idle.set()

    async def wait_until_idle(self) -> None:
        await self._is_idle.wait()

    def fail_all(self, error: ApiError) -> None:
        """End every open generation with this error."""
        for generation in self._open:
            generation.fail(error)
