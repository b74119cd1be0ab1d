"""Two doors, of which the second leaves all to the first as long as that is there."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from dllm_operator.scaling.door_count import PATH, door_count, total

from tests.operator.door_bench import Bench, door, needs_haproxy, pair, seen, until

pytestmark = needs_haproxy


async def seen_by_both(first: Bench, second: Bench) -> tuple[int, int, int]:
    """What came, what runs and what has ended, as both doors tell it together."""
    found = total([door_count(await each.admin(PATH), "") for each in (first, second)])
    return found.arrived, int(sum(pool.running for pool in found.pools.values())), found.finished


def test_there_is_one_queue_whichever_door_is_asked(tmp_path: Path) -> None:
    async def run() -> None:
        async with pair(tmp_path, [2]) as (first, second):
            [engine] = first.engines
            tasks = [each.ask() for _ in range(3) for each in (first, second)]
            await first.queued(4)
            assert await second.waiting() == 0
            assert engine.most_open == 2
            assert (await seen_by_both(first, second))[1] == 2
            while not all(task.done() for task in tasks):
                engine.release_all()
                await asyncio.wait(tasks, timeout=0.05)
            answers = [task.result() for task in tasks]
            assert [status for status, *_ in answers] == [200] * 6
            assert {headers["X-Served-By"].partition("/")[0] for _, headers, _ in answers} == {"e0"}
            assert await seen_by_both(first, second) == (6, 0, 6)

    asyncio.run(run())


def test_the_second_stands_in_for_a_first_that_is_told_to_go_and_nothing_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with pair(tmp_path, [64]) as (first, second):
            [engine] = first.engines
            before = [second.ask() for _ in range(4)]
            await seen(engine, 4)

            first.process.send_signal(signal.SIGUSR1)  # ends with its last answer
            await until(first.is_closed, True)
            after = [second.ask() for _ in range(8)]
            await seen(engine, 12)
            engine.release_all()

            assert [(await task)[0] for task in before + after] == [200] * 12
            assert await asyncio.wait_for(first.process.wait(), 30) == 0

    asyncio.run(run())


def test_the_second_stands_in_for_a_first_that_is_gone(tmp_path: Path) -> None:
    async def run() -> None:
        async with pair(tmp_path, [64]) as (first, second):
            [engine] = first.engines
            first.process.kill()
            await first.process.wait()

            tasks = [second.ask() for _ in range(8)]
            await seen(engine, 8)
            engine.release_all()

            assert [(await task)[0] for task in tasks] == [200] * 8

    asyncio.run(run())


def test_what_runs_has_not_ended(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [4]) as alone:
            [engine] = alone.engines
            task = alone.ask()
            await seen(engine, 1)
            count = door_count(await alone.admin(PATH), "")
            assert (count.arrived, count.finished, count.pools[""].running) == (1, 0, 1)
            engine.release_all()
            assert (await task)[0] == 200

    asyncio.run(run())
