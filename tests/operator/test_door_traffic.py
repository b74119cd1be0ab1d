"""What the front door's configuration does to requests: HAProxy before engines that wait to be told."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.operator.door_bench import PATIENCE_SECONDS, QUEUE, Bench, door, needs_haproxy, seen, until

pytestmark = needs_haproxy


def test_a_pod_gets_no_more_than_its_limit_and_the_rest_waits_for_whoever_is_free(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [2, 1]) as bench:
            big, small = bench.engines
            tasks = [bench.ask() for _ in range(6)]
            await bench.queued(3)
            assert (big.open, small.open) == (2, 1)
            small.release()
            await seen(small, 2)  # late binding: it goes where a place is free
            while not all(task.done() for task in tasks):
                for engine in bench.engines:
                    engine.release_all()
                await asyncio.wait(tasks, timeout=0.05)
            assert [task.result()[0] for task in tasks] == [200] * 6
            assert (big.most_open, small.most_open) == (2, 1)

    asyncio.run(run())


def test_beyond_the_queue_a_request_is_refused_and_told_when_to_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [1]) as bench:
            tasks = [bench.ask() for _ in range(1 + QUEUE)]
            await bench.queued(QUEUE)

            status, headers, body = await bench.ask()

            assert status == 429
            assert headers["Retry-After"] == "5"
            assert json.loads(body)["error"]["type"] == "rate_limit_error"
            for task in tasks:
                task.cancel()

    asyncio.run(run())


async def order(bench: Bench, count: int) -> list[str]:
    """Labels of the requests in the order in which the only engine got them."""
    [engine] = bench.engines
    for number in range(count):
        await seen(engine, number + 1)
        engine.release()
    return [request.headers["Label"] for request in engine.seen]


def test_high_goes_before_and_low_after_the_others(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [1]) as bench:
            asked = (("a", "normal"), ("b", "low"), ("c", "normal"), ("d", "high"))
            for number, (label, priority) in enumerate(asked):
                bench.ask(Label=label, X_Request_Priority=priority)
                await (seen(bench.engines[0], 1) if number == 0 else bench.queued(number))

            assert await order(bench, 4) == ["a", "d", "c", "b"]

    asyncio.run(run())


@pytest.mark.parametrize(("header", "value"), [("Authorization", "Bearer {}"), ("X_Api_Key", "{}")])
def test_a_key_with_many_requests_does_not_starve_one_with_few(
    tmp_path: Path, header: str, value: str
) -> None:
    async def run() -> None:
        async with door(tmp_path, [1]) as bench:
            asked = ("many-1", "many-2", "many-3", "many-4", "few-1")
            for number, label in enumerate(asked):
                bench.ask(Label=label, **{header: value.format(label.partition("-")[0])})
                await (seen(bench.engines[0], 1) if number == 0 else bench.queued(number))

            found = await order(bench, 5)

            assert found.index("few-1") < found.index("many-4")
            assert [label for label in found if "many" in label] == list(asked[:4])

    asyncio.run(run())


def test_a_client_that_leaves_the_queue_is_no_request_of_any_engine(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [1]) as bench:
            bench.ask(Label="a")
            await seen(bench.engines[0], 1)
            leaver = bench.ask(Label="b")
            await bench.queued(1)
            leaver.cancel()
            await bench.queued(0)
            bench.ask(Label="c")
            await bench.queued(1)

            assert await order(bench, 2) == ["a", "c"]

    asyncio.run(run())


def test_what_cannot_connect_to_a_pod_goes_to_another(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64], dead=1) as bench:
            tasks = [bench.ask() for _ in range(4)]
            await seen(bench.engines[0], 4)
            for _ in range(4):
                bench.engines[0].release()
            answers = await asyncio.gather(*tasks)

            assert [status for status, _, _ in answers] == [200] * 4
            assert {headers["X-Served-By"] for _, headers, _ in answers} == {"e0/127.0.0.1"}

    asyncio.run(run())


def test_an_engine_that_breaks_off_is_not_asked_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64]) as bench:
            asking = bench.ask()
            await seen(bench.engines[0], 1)
            transport = bench.engines[0].seen[0].transport
            assert transport is not None
            transport.abort()

            with pytest.raises(aiohttp.ClientError):
                await asking
            assert len(bench.engines[0].seen) == 1

    asyncio.run(run())


def test_without_an_engine_a_request_gets_503_in_the_apis_shape(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [], dead=1) as bench:
            status, headers, body = await bench.ask()

            assert status == 503
            assert headers["Retry-After"] == "5"
            assert json.loads(body)["error"]["type"] == "server_error"

    asyncio.run(run())


def test_an_engine_learns_who_asks_and_under_which_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64]) as bench:
            tasks = [bench.ask(), bench.ask(X_Request_Id="mine")]
            await seen(bench.engines[0], 2)
            headers = [request.headers for request in bench.engines[0].seen]
            for _ in tasks:
                bench.engines[0].release()
            await asyncio.gather(*tasks)

            assert [each["X-Forwarded-For"] for each in headers] == ["127.0.0.1"] * 2
            ids = {each["X-Request-Id"] for each in headers}
            assert "mine" in ids
            assert len(ids) == 2

    asyncio.run(run())


def test_a_door_that_is_told_to_go_ends_with_its_last_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64]) as bench:
            async with bench.session.get(f"{bench.url}/v1/test") as response:
                assert await response.content.readline() == b"data: first\n"  # before the stream is over
                bench.process.send_signal(signal.SIGUSR1)

                await until(bench.is_closed, True)
                bench.engines[0].release()
                assert (await response.text()).endswith("[DONE]\n\n")
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert await bench.process.wait() == 0

    asyncio.run(run())


def test_a_connection_is_closed_with_an_answer_and_not_under_the_next_request(tmp_path: Path) -> None:
    async def run() -> None:
        async with door(tmp_path, [64]) as bench:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(bench.url.rpartition(":")[2]))
            for number in range(2):
                writer.write(b"GET /v1/test HTTP/1.1\r\nHost: door\r\n\r\n")
                await seen(bench.engines[0], number + 1)
                bench.engines[0].release()
                answer = await reader.readuntil(b"0\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 200")
                if number == 0:
                    bench.process.send_signal(signal.SIGUSR1)
                    await until(bench.is_closed, True)

            assert b"connection: close" in answer
            writer.close()

    asyncio.run(run())
