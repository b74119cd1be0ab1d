"""Requests that come while there is no engine: they wait for the first one, and the door counts them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dllm_operator.scaling.door_count import HELD_PATH, PATH, door_count

from tests.operator.door_bench import QUEUE, door, needs_haproxy, seen, started, until

pytestmark = needs_haproxy


def test_requests_wait_for_a_first_engine_and_all_are_answered(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [], dead=1, hold_seconds=60) as bench:
            tasks = [bench.ask() for _ in range(QUEUE)]
            await until(bench.held, QUEUE)
            count = door_count(await bench.admin(PATH), await bench.admin(HELD_PATH))
            assert (count.waiting, count.arrived, count.finished) == (QUEUE, QUEUE, 0)
            [engine] = bench.absent
            async with started(engine):
                await seen(engine, QUEUE)
                count = door_count(await bench.admin(PATH), await bench.admin(HELD_PATH))
                assert (count.waiting, count.pools[""].running) == (0, QUEUE)
                engine.release_all()
                assert [(await task)[0] for task in tasks] == [200] * QUEUE
            count = door_count(await bench.admin(PATH), await bench.admin(HELD_PATH))
            assert (count.waiting, count.arrived, count.finished) == (0, QUEUE, QUEUE)

    asyncio.run(run())


def test_an_engine_that_has_just_come_gets_nothing_before_it_says_that_it_is_ready(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64], hold_seconds=60, are_ready=False) as bench:
            [engine] = bench.engines
            task = bench.ask()  # before the first check has ended: HAProxy takes the engine to be up
            await until(bench.held, 1)
            assert engine.seen == []

            engine.ready.set()
            await seen(engine, 1)
            engine.release_all()
            assert (await task)[0] == 200

    asyncio.run(run())


def test_more_than_may_wait_are_told_when_to_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [], dead=1, hold_seconds=60) as bench:
            tasks = [bench.ask() for _ in range(QUEUE)]
            await until(bench.held, QUEUE)

            status, headers, _ = await bench.ask()

            assert (status, headers["Retry-After"]) == (429, "5")
            for task in tasks:
                task.cancel()

    asyncio.run(run())


def test_who_has_waited_long_enough_gets_503(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [], dead=1, hold_seconds=1) as bench:
            status, headers, _ = await bench.ask()

            assert (status, headers["Retry-After"]) == (503, "5")
            assert await bench.held() == 0

    asyncio.run(run())


def test_one_whose_client_has_left_is_no_longer_counted(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [], dead=1, hold_seconds=60) as bench:
            task = bench.ask()
            await until(bench.held, 1)
            task.cancel()
            await until(bench.held, 0)

    asyncio.run(run())
