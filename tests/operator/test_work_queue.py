from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from dllm_operator.watching.work_queue import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    QueueObserver,
    WorkQueue,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operator.virtual_time import VirtualLoop, run_virtual


class TroubleError(Exception):
    """What a handler raises here."""


class Work:
    """A handler that takes ``seconds``, fails the first ``failures`` times, and notes when it ran."""

    def __init__(self, seconds: float = 0.0, failures: int = 0) -> None:
        self.seconds = seconds
        self.failures = failures
        self.runs: list[tuple[str, float, float]] = []
        self.running: set[str] = set()

    async def handle(self, key: str) -> None:
        assert key not in self.running, f"{key} runs twice at once"
        self.running.add(key)
        start = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running.discard(key)
            self.runs.append((key, start, asyncio.get_running_loop().time()))
        if len(self.runs) <= self.failures:
            raise TroubleError(f"run {len(self.runs)}")

    def starts(self) -> list[float]:
        return [start for _, start, _ in self.runs]


@asynccontextmanager
async def working(queue: WorkQueue[str], workers: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


adds = st.tuples(st.floats(0, 3), st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 2.0]))


@settings(deadline=None)
@given(st.lists(adds, min_size=1, max_size=25), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 4))
def test_a_key_never_runs_twice_at_once_and_no_change_goes_unseen(
    schedule: list[tuple[float, str, float]], seconds: float, failures: int
) -> None:
    async def scenario() -> None:
        work, loop = Work(seconds, failures), asyncio.get_running_loop()
        queue = WorkQueue(work.handle)
        added = []
        async with working(queue, workers=3):
            for pause, key, after in schedule:
                await asyncio.sleep(pause)
                queue.add(key, after)
                added.append((key, loop.time(), after))
            await asyncio.sleep(100)
            assert queue.depth == 0
        for key, moment, after in added:
            seen = [start for ran, start, _ in work.runs if ran == key and start >= moment]
            assert seen, f"{key} added at {moment} never ran"
            assert min(seen) <= moment + after + seconds + 1e-6

    run_virtual(scenario())


def test_changes_while_a_key_runs_make_it_run_once_more() -> None:
    async def scenario() -> None:
        work = Work(seconds=10)
        queue = WorkQueue(work.handle)
        async with working(queue):
            queue.add("a")
            await asyncio.sleep(1)
            for _ in range(3):
                queue.add("a")
            await asyncio.sleep(100)
        assert work.starts() == [0, 10]

    run_virtual(scenario())


def test_a_key_that_is_added_often_before_it_runs_runs_once() -> None:
    async def scenario() -> None:
        work = Work()
        queue = WorkQueue(work.handle)
        for _ in range(5):
            queue.add("a")
        assert queue.depth == 1
        async with working(queue):
            await asyncio.sleep(1)
        assert len(work.runs) == 1

    run_virtual(scenario())


def test_failures_back_off_up_to_a_limit() -> None:
    async def scenario() -> None:
        work = Work(failures=12)
        queue = WorkQueue(work.handle)
        async with working(queue):
            queue.add("a")
            await asyncio.sleep(1000)
        starts = work.starts()
        pauses = [after - before for before, after in pairwise(starts)]
        assert pauses == [min(FIRST_RETRY_SECONDS * 2**n, LAST_RETRY_SECONDS) for n in range(12)]

    run_virtual(scenario())


def test_a_success_resets_the_back_off() -> None:
    async def scenario() -> None:
        work = Work(failures=3)
        queue = WorkQueue(work.handle)
        async with working(queue):
            queue.add("a")
            await asyncio.sleep(100)
            work.failures = len(work.runs) + 1
            queue.add("a")
            await asyncio.sleep(100)
        assert work.starts()[-2:] == [100, 100 + FIRST_RETRY_SECONDS]

    run_virtual(scenario())


def test_a_failing_key_does_not_keep_the_others_waiting() -> None:
    async def scenario() -> None:
        work = Work(failures=1)
        queue = WorkQueue(work.handle)
        async with working(queue, workers=1):
            queue.add("a")
            queue.add("b")
            await asyncio.sleep(0.1)
            assert [key for key, *_ in work.runs] == ["a", "b"]

    run_virtual(scenario())


@pytest.mark.parametrize("delays", [(10.0, 2.0), (2.0, 10.0), (2.0, 2.0)])
def test_of_two_appointments_the_earlier_stands_alone(delays: tuple[float, float]) -> None:
    async def scenario() -> None:
        work = Work()
        queue = WorkQueue(work.handle)
        async with working(queue):
            for delay in delays:
                queue.add("a", delay)
            await asyncio.sleep(100)
        assert work.starts() == [2.0]

    run_virtual(scenario())


def test_an_edit_goes_before_what_was_put_off() -> None:
    async def scenario() -> None:
        work = Work(seconds=5)
        queue = WorkQueue(work.handle)
        async with working(queue, workers=1):
            queue.add("busy")
            for key in ("echo-1", "echo-2"):
                queue.add(key, 1.0)
            await asyncio.sleep(2)
            queue.add("edit")
            queue.add("echo-2")
            await asyncio.sleep(100)
        assert [key for key, *_ in work.runs] == ["busy", "edit", "echo-2", "echo-1"]

    run_virtual(scenario())


def test_cancellation_leaves_nothing_pending() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        work = Work(seconds=5)
        queue = WorkQueue(work.handle)
        async with working(queue, workers=1):
            queue.add("running")
            queue.add("waiting")
            queue.add("put off", 50)
            await asyncio.sleep(1)
            queue.add("running")
        assert loop.pending_timers() == 0
        assert work.running == set()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(100)
        assert [key for key, *_ in work.runs] == ["running"]

    run_virtual(scenario())


def test_metrics_hear_of_every_run_and_of_an_empty_queue() -> None:
    class Notes(QueueObserver):
        def __init__(self) -> None:
            self.depths: list[int] = []
            self.errors: list[Exception | None] = []

        def depth(self, keys: int) -> None:
            self.depths.append(keys)

        def finished(self, seconds: float, error: Exception | None) -> None:
            self.errors.append(error)

    async def scenario() -> None:
        notes = Notes()
        queue = WorkQueue(Work(seconds=1, failures=1).handle, notes)
        async with working(queue):
            queue.add("a")
            queue.add("b")
            await asyncio.sleep(100)
        assert (max(notes.depths), notes.depths[-1]) == (2, 0)
        assert [type(error) for error in notes.errors] == [TroubleError, type(None), type(None)]

    run_virtual(scenario())
