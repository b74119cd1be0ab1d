"""One load on one endpoint: requests are sent when they are due, and what comes back is timed."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from dllm_server.load.answer import Answer, EventDecoder, error_code, error_message
from dllm_server.load.arrivals import Arrival, Draw
from dllm_server.load.endpoint import Endpoint
from dllm_server.load.outcome import CUT, Outcome
from dllm_server.load.question import Question

IDLE_CONNECTION_SECONDS = 2.0  # less than servers keep one: a request must not meet its end
TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class OpenLoad:
    """Requests come when they come, whatever the endpoint does. Those open ``drain_seconds`` after the last
    are cut."""

    arrivals: Sequence[Arrival[Question]]
    drain_seconds: float


@dataclass(frozen=True, slots=True)
class ClosedLoad:
    """Each of ``clients`` asks when its last answer has come, until there were ``requests`` or it is late."""

    clients: int
    draw: Draw[Question]
    seed: int
    requests: float
    seconds: float


Load = OpenLoad | ClosedLoad


def open_session() -> aiohttp.ClientSession:
    """Without a limit of connections: a load generator must not queue."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None),
    )


class Run:
    """``outcomes`` and ``open_requests`` can be looked at meanwhile. ``stop`` ends it early: nothing more is
    sent, and what is open is cut."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        *,
        timeout_seconds: float,
        stop: asyncio.Event,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.most_open = 0
        self.refusal = ""  # what the endpoint said when it last refused a request
        self._session, self._endpoint, self._stop = session, endpoint, stop
        self._timeout_seconds, self._clock = timeout_seconds, clock
        self._began = clock()
        self._open: dict[asyncio.Task[None], _Exchange] = {}

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._clock() - self._began

    @property
    def open_requests(self) -> int:
        return len(self._open)

    async def serve(self, load: Load) -> list[Outcome]:
        """All outcomes, when the last is known."""
        self._began = self._clock()
        try:
            match load:
                case OpenLoad():
                    await self._serve_open(load)
                case ClosedLoad():
                    await self._serve_closed(load)
        finally:
            await self._cut()
        return self.outcomes

    async def _serve_open(self, load: OpenLoad) -> None:
        for arrival in load.arrivals:
            if await self._has_stopped(arrival.seconds - self.seconds):
                return
            self._send(arrival.job, arrival.seconds)
        last = load.arrivals[-1].seconds if load.arrivals else 0.0
        if self._open:
            await self._until_stopped(asyncio.wait(self._open), last + load.drain_seconds - self.seconds)

    async def _serve_closed(self, load: ClosedLoad) -> None:
        rng, sent = random.Random(load.seed), 0

        async def ask_again_and_again() -> None:
            nonlocal sent
            while sent < load.requests and self.seconds < load.seconds:
                sent += 1
                await asyncio.wait([self._send(load.draw(rng, sent - 1), self.seconds)])

        await self._until_stopped(asyncio.gather(*(ask_again_and_again() for _ in range(load.clients))), None)

    async def _has_stopped(self, seconds: float) -> bool:
        """After so long, or at once when it is told to stop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return self._stop.is_set()
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _until_stopped(self, work: Awaitable[object], seconds: float | None) -> None:
        """Until the work is done, ``seconds`` are over or it is told to stop."""
        working, stopping = asyncio.ensure_future(work), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait(
                [working, stopping],
                timeout=None if seconds is None else max(seconds, 0.0),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if working.done():
                await working
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    def _send(self, question: Question, intended: float) -> asyncio.Task[None]:
        exchange = _Exchange(intended, self.seconds)
        task = asyncio.create_task(self._ask(question, exchange))
        self._open[task] = exchange
        self.most_open = max(self.most_open, len(self._open))
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Task[None]) -> None:
        exchange = self._open.pop(task)
        if task.cancelled():
            exchange.error = CUT
        elif (error := task.exception()) is not None:
            exchange.error = f"client: {type(error).__name__}"
        self.outcomes.append(exchange.outcome())

    async def _cut(self) -> None:
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, question: Question, exchange: _Exchange) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._exchange(question, exchange)
        except TimeoutError:
            exchange.error = TIMEOUT
        except aiohttp.ClientConnectorError:
            exchange.error = "connect"
        except (aiohttp.ClientError, OSError):
            exchange.error = "connection: broke off"
        except ValueError as error:
            exchange.error = f"stream: {error}"
        finally:
            exchange.ended = self.seconds

    async def _exchange(self, question: Question, exchange: _Exchange) -> None:
        endpoint, answer, decoder = self._endpoint, exchange.answer, EventDecoder()
        url = endpoint.url + endpoint.api.path
        async with self._session.post(
            url, json=endpoint.body(question), headers=endpoint.headers
        ) as response:
            if response.status != 200:
                exchange.error, self.refusal = await _refusal(response)
                return
            async for piece in response.content.iter_any():
                now = self.seconds
                for data in decoder.feed(piece):
                    answer.add(data, now)
        exchange.error = answer.failure()


class _Exchange:
    """One request on its way."""

    def __init__(self, intended: float, sent: float) -> None:
        self.intended = intended
        self.sent = self.ended = sent
        self.answer = Answer()
        self.error: str | None = None

    def outcome(self) -> Outcome:
        answer = self.answer
        return Outcome(
            intended=self.intended,
            sent=self.sent,
            ended=self.ended,
            blocks=tuple(answer.blocks),
            error=self.error,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            queue_seconds=answer.queue_seconds,
        )


async def _refusal(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """``429`` or ``400 context_length_exceeded``, and the message."""
    try:
        body = json.loads(await response.read())
    except ValueError:
        return str(response.status), ""
    code = error_code(body)
    kind = f"{response.status}" if code in ("unknown", str(response.status)) else f"{response.status} {code}"
    return kind, error_message(body)
