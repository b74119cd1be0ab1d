"""Keys to reconcile: each at most once at a time, once more if it changed meanwhile, later and later if it
fails.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

Key = TypeVar("Key", bound=Hashable)
Entry = tuple[int, int, int, Key]  # rank, turn, number, key

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 60.0


class WorkQueue(Generic[Key]):
    """`handle` runs for one key in one worker at a time. It may say after how many seconds it wants the key
    again; an exception retries the key with exponential backoff. Tenants take turns: one with many keys keeps
    none of another waiting, and has half of the workers at most.
    """

    def __init__(
        self,
        handle: Callable[[Key], Awaitable[float | None]],
        observe: QueueObserver | None = None,
        tenant_of: Callable[[Key], Hashable] = lambda key: key,
    ) -> None:
        self._handle = handle
        self._observe = observe or QueueObserver()
        self._tenant_of = tenant_of
        self._turn = 0  # of the key taken last
        self._next_turns: dict[Hashable, int] = {}  # by tenant
        self._ready: asyncio.PriorityQueue[Entry[Key]] = asyncio.PriorityQueue()
        self._most_of_tenant = 1
        self._workers_of: Counter[Hashable] = Counter()  # by tenant
        self._aside: dict[
            Hashable, list[Entry[Key]]
        ] = {}  # heaps by tenant, until one of its workers is free
        self._number = itertools.count()
        self._queued: dict[Key, int] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key, after_seconds: float = 0.0) -> None:
        """Soon, or no later than `after_seconds`; an earlier appointment of the same key stands.

        What was added for now goes before what was put off: a user's edit before the echoes of others.
        """
        if after_seconds > 0:
            loop = asyncio.get_running_loop()
            timer = self._timers.get(key)
            if timer is not None:
                if timer.when() <= loop.time() + after_seconds:
                    return
                timer.cancel()
            self._timers[key] = loop.call_later(after_seconds, self._due, key)
            return
        self._enqueue(key, rank=0)

    @property
    def depth(self) -> int:
        """Keys waiting or running."""
        return len(self._queued) + len(self._running)

    async def run(self, workers: int) -> None:
        """Until cancelled."""
        self._most_of_tenant = (workers + 1) // 2
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self._enqueue(key, rank=1)

    def _enqueue(self, key: Key, rank: int) -> None:
        if key in self._running:
            self._again.add(key)
        elif self._queued.get(key, rank + 1) > rank:  # an entry of a worse rank stays behind and is skipped
            self._queued[key] = rank
            self._ready.put_nowait((rank, self._take_turn(key), next(self._number), key))
        self._observe.depth(self.depth)

    def _take_turn(self, key: Key) -> int:
        """The tenant's n-th waiting key comes in the n-th turn from now, as everybody else's."""
        tenant = self._tenant_of(key)
        turn = max(self._next_turns.get(tenant, 0), self._turn)
        self._next_turns[tenant] = turn + 1
        return turn

    async def _work(self) -> None:
        while True:
            entry = await self._ready.get()
            if self._is_stale(entry):
                continue
            _, turn, _, key = entry
            tenant = self._tenant_of(key)
            if self._workers_of[tenant] >= self._most_of_tenant:
                heapq.heappush(self._aside.setdefault(tenant, []), entry)
                continue
            self._turn = max(self._turn, turn)
            if self._ready.empty() and not self._aside:
                self._next_turns.clear()
            del self._queued[key]
            self._running.add(key)
            self._workers_of[tenant] += 1
            started = time.monotonic()
            try:
                again_seconds = await self._handle(key)
            except Exception as error:  # one resource's trouble must not stop the others
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 16), LAST_RETRY_SECONDS)
                self._observe.finished(time.monotonic() - started, error)
                log.warning("reconcile failed", key=key, error=str(error), retry_seconds=delay)
                self.add(key, delay)
            else:
                self._failures.pop(key, None)
                self._observe.finished(time.monotonic() - started, None)
                if again_seconds is not None:
                    self.add(key, again_seconds)
            finally:
                self._running.discard(key)
                self._free_worker_of(tenant)
                if key in self._again:
                    self._again.discard(key)
                    self._enqueue(key, rank=0)
                self._observe.depth(self.depth)

    def _free_worker_of(self, tenant: Hashable) -> None:
        """For the next of its keys that was put aside."""
        self._workers_of[tenant] -= 1
        if self._workers_of[tenant] == 0:
            del self._workers_of[tenant]
        aside = self._aside.get(tenant, [])
        while aside:
            entry = heapq.heappop(aside)
            if not self._is_stale(entry):
                self._ready.put_nowait(entry)
                break
        if not aside:
            self._aside.pop(tenant, None)

    def _is_stale(self, entry: Entry[Key]) -> bool:
        """Whether its key runs already, or came again with a better rank."""
        rank, _, _, key = entry
        return self._queued.get(key) != rank


class QueueObserver:
    """What a queue tells its metrics; this one ignores it."""

    def depth(self, keys: int) -> None:
        """Keys waiting or running now."""

    def finished(self, seconds: float, error: Exception | None) -> None:
        """One run of one key."""
