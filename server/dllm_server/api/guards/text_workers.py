"""Where large bodies are read and long texts are tokenised: beside the event loop, and few at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from dllm_server.api.guards.heap import give_back_memory

Result = TypeVar("Result")

SHORT_SIZE = 1024  # characters or tokens; done at once, in less time than a thread's turn takes
LONG_SIZE = 65_536  # more than this waits in a line of its own, so that what is shorter does not wait for it


class TextWorkers:
    """One thread for large bodies, one for long texts and one for those in between: at most two texts are
    worked on at once.

    Who waits for a turn and is cancelled gives it up; work that has begun goes on to its end, and the next
    begins after it. Work on texts must give up the interpreter's lock.
    """

    def __init__(self) -> None:
        self._bodies = ThreadPoolExecutor(1, thread_name_prefix="body")
        self._rests_until = 0.0
        self._middle = ThreadPoolExecutor(1, thread_name_prefix="text")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="long-text")

    async def read(self, work: Callable[[], Result], *, is_large: bool) -> Result:
        """The result of ``work`` on a request's body. It may keep the interpreter's lock: after a large one
        the thread rests for as long, in which the loop has the lock to itself."""
        if not is_large:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._bodies, partial(self._rested, work))

    async def run(self, size: int, work: Callable[[], Result]) -> Result:
        """The result of ``work`` on a text of so many characters or tokens."""
        if size <= SHORT_SIZE:
            return work()
        loop = asyncio.get_running_loop()
        if size <= LONG_SIZE:
            return await loop.run_in_executor(self._middle, work)
        return await loop.run_in_executor(self._long, partial(_run_and_tidy, work))

    def _rested(self, work: Callable[[], Result]) -> Result:
        time.sleep(max(0.0, self._rests_until - time.monotonic()))
        began = time.monotonic()
        try:
            return work()
        finally:
            self._rests_until = 2 * time.monotonic() - began

    def close(self) -> None:
        """End the threads once what runs is done; nothing that waits will begin."""
        for executor in (self._bodies, self._middle, self._long):
            executor.shutdown(wait=False, cancel_futures=True)


def _run_and_tidy(work: Callable[[], Result]) -> Result:
    try:
        return work()
    finally:
        give_back_memory()
