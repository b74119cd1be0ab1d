from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from dllm_operator.observing import scrape as module
from dllm_operator.observing.scrape import Scrape, scrape
from dllm_operator.tuning.reading import ReadingError, parse_reading
from engine_metrics import make_snapshot, make_window, metrics_text
from hypothesis import given
from hypothesis import strategies as some

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
GOOD = metrics_text(make_snapshot(make_window(0)))


async def good(_: web.Request) -> web.StreamResponse:
    return web.Response(text=GOOD)


def scrape_pods(pods: dict[str, Handler], *, timeout_seconds: float = 5.0, repeat: int = 1) -> Scrape:
    """Each pod has a path of one server."""

    async def run() -> Scrape:
        app = web.Application()
        for pod, handler in pods.items():
            app.router.add_get(f"/{pod}/metrics", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = runner.addresses[0]
        urls = {
            f"{pod}-{number}" if repeat > 1 else pod: f"http://127.0.0.1:{address[1]}/{pod}/metrics"
            for pod in pods
            for number in range(repeat)
        }
        try:
            async with aiohttp.ClientSession() as session:
                return await scrape(session, urls, timeout_seconds=timeout_seconds)
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def test_pods_that_fail_say_why_and_stop_nobody() -> None:
    async def failing(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async def moved(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/good/metrics")

    async def lying(_: web.Request) -> web.StreamResponse:
        return web.Response(
            text=GOOD.replace("dllm_device_memory_bytes 1.048576e+09", "dllm_device_memory_bytes NaN")
        )

    async def hanging(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    pods = {"good": good, "failing": failing, "moved": moved, "lying": lying, "hanging": hanging}

    result = scrape_pods(pods, timeout_seconds=0.5)

    assert set(result.readings) == {"good"}
    assert result.silent == {
        "failing": "metrics answer 503",
        "moved": "metrics answer 302",
        "lying": "dllm_device_memory_bytes is nan",
        "hanging": "no metrics within 0.5 s",
    }


SECRET = "hunter2"
HTTP = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        f"{SECRET}\r\n\r\n",
        f"HTTP/1.1 200 {SECRET}\r\n{SECRET}\r\n\r\n",
        f"HTTP/1.1 999999 {SECRET}\r\n\r\n",
        f"{HTTP}Content-Length: {SECRET}\r\n\r\n",
        f"{HTTP}Content-Encoding: gzip\r\n\r\n{SECRET}",
        f"{HTTP}Transfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
        f"{HTTP}\r\ndllm_kv_pages {SECRET}\n",
        f'{HTTP}\r\ndllm_kv_pages{{state="{SECRET}"}} nan\n',
        f"{HTTP}\r\n{SECRET}{{\n",
        f"{HTTP}\r\n# TYPE {SECRET} {SECRET}\n",
    ],
)
def test_nothing_of_what_a_hostile_pod_answers_is_repeated(answer: str) -> None:
    async def run() -> Scrape:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer.encode())
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with aiohttp.ClientSession() as session:
                return await scrape(session, {"a": f"http://127.0.0.1:{port}/metrics"})

    result = asyncio.run(run())

    assert list(result.silent) == ["a"]
    assert SECRET not in result.silent["a"]


@given(
    text=some.lists(
        some.sampled_from(
            ["dllm_kv_pages", "{", "}", '"', "=", ",", "#", " ", "\n", "TYPE", "1", SECRET, "\\"]
        )
    ).map("".join)
)
def test_metrics_of_any_form_are_a_reading_or_a_sentence_of_our_own(text: str) -> None:
    with pytest.raises(ReadingError) as refused:
        parse_reading(text)

    assert SECRET not in str(refused.value)


def test_an_endless_answer_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"# " + b"x" * 100_000 + b"\n")

    result = scrape_pods({"a": endless}, timeout_seconds=30.0)

    assert result.silent == {"a": f"metrics exceed {module.MOST_BYTES} bytes"}


def test_a_pod_that_is_gone_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    async def run() -> Scrape:
        async with aiohttp.ClientSession() as session:
            return await scrape(session, {"a": f"http://127.0.0.1:{port}/metrics"})

    result = asyncio.run(run())

    assert not result.readings
    assert result.silent["a"].startswith("no metrics: ")


def test_no_more_pods_are_asked_at_once_than_the_bound() -> None:
    open_now, most = 0, 0

    async def counting(_: web.Request) -> web.StreamResponse:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0.02)
        open_now -= 1
        return web.Response(text=GOOD)

    result = scrape_pods({"a": counting}, repeat=3 * module.CONCURRENT)

    assert len(result.readings) == 3 * module.CONCURRENT
    assert most <= module.CONCURRENT
