"""Clients of a front door: closed and open loops, and connections that are only held."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from dllm_server.load.percentile import percentile

from benchmarks.door.engine import SERVICE_HEADER

OPENED_AT_ONCE = 50
Target = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Answered:
    """Of one request; ``status`` 0 where the connection broke, ``service`` what it took in its seat."""

    sent: float
    answered: float
    status: int
    service: float = 0.0

    @property
    def seconds(self) -> float:
        return self.answered - self.sent


@dataclass(frozen=True, slots=True)
class Figures:
    requests: int
    failed: int
    per_second: float
    p50: float
    p95: float


def figures(answers: Sequence[Answered]) -> Figures:
    """Of the requests answered with 200; the others are counted."""
    good = [answer for answer in answers if answer.status == 200]
    span = max(answer.answered for answer in good) - min(answer.sent for answer in good)
    seconds = sorted(answer.seconds for answer in good)
    return Figures(
        len(answers),
        len(answers) - len(good),
        len(good) / span,
        percentile(seconds, 0.5),
        percentile(seconds, 0.95),
    )


def draw_works(count: int, mean: float, seed: int) -> list[float]:
    """Seconds of work of requests whose lengths differ as answers' do."""
    rng = random.Random(seed)
    return [mean * rng.uniform(0.5, 1.5) for _ in range(count)]


def draw_arrivals(count: int, per_second: float, seed: int) -> list[float]:
    """A Poisson stream's times."""
    rng, now, times = random.Random(seed), 0.0, []
    for _ in range(count):
        now += rng.expovariate(per_second)
        times.append(now)
    return times


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0),
        timeout=aiohttp.ClientTimeout(total=120),
    )


def chat(work: float, *, stream: bool = False) -> dict[str, Any]:
    message = {"role": "user", "content": "a"}
    return {"model": "fake", "messages": [message], "user_seconds": work, "stream": stream}


async def ask(session: aiohttp.ClientSession, url: str, work: float, *, stream: bool = False) -> Answered:
    """One request, read to its end. A stream that ends before its last event is a broken one."""
    sent = time.perf_counter()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=chat(work, stream=stream)) as response:
            body = await response.read()
            status, service = response.status, float(response.headers.get(SERVICE_HEADER, 0.0))
    except (aiohttp.ClientError, TimeoutError, OSError):
        return Answered(sent, time.perf_counter(), 0)
    if stream and status == 200 and not body.endswith(b"[DONE]\n\n"):
        status = 0
    return Answered(sent, time.perf_counter(), status, service)


async def closed_loop(target: Target, works: Sequence[float], clients: int) -> list[Answered]:
    """Each client asks when its last answer has come, over a connection of its own."""
    left, answers = iter(works), list[Answered]()

    async def one() -> None:
        async with _session() as session:
            for work in left:
                answers.append(await ask(session, target(), work))

    await asyncio.gather(*(one() for _ in range(clients)))
    return answers


async def open_loop(target: Target, works: Sequence[float], arrivals: Sequence[float]) -> list[Answered]:
    """Requests come when they come."""
    began = time.perf_counter()

    async def one(session: aiohttp.ClientSession, work: float, at: float) -> Answered:
        await asyncio.sleep(max(0.0, at - (time.perf_counter() - began)))
        return await ask(session, target(), work)

    async with _session() as session:
        jobs = (one(session, work, at) for work, at in zip(works, arrivals, strict=True))
        return list(await asyncio.gather(*jobs))


async def keep_asking(
    target: Target, work: float, clients: int, *, stream: bool, stop: asyncio.Event
) -> list[Answered]:
    """Of ``clients`` until it is told to stop."""
    answers = list[Answered]()

    async def one() -> None:
        async with _session() as session:
            while not stop.is_set():
                answers.append(await ask(session, target(), work, stream=stream))

    await asyncio.gather(*(one() for _ in range(clients)))
    return answers


class Held:
    """Connections to a proxy that are only there: idle after one answer, or in the middle of a stream."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []

    async def idle(self, port: int, count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nHost: door\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            self._writers.append(writer)

    async def streaming(self, port: int, count: int, seconds: float) -> None:
        """Returns when each of them has had an event."""
        body = json.dumps(chat(seconds, stream=True)).encode()

        few = asyncio.Semaphore(OPENED_AT_ONCE)  # a queue is not what is measured

        async def one() -> None:
            async with few:
                await begin()

        async def begin() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: door\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await reader.readuntil(b"data: ")
            self._writers.append(writer)

        await asyncio.gather(*(one() for _ in range(count)))

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()
