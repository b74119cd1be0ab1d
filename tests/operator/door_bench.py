"""HAProxy with the front door's configuration, before engines that wait to be told."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from dllm_operator.render.door_config import Door, DoorPool, Hold, door_config, hold_script

QUEUE = 4
PATIENCE_SECONDS = 60.0
HAPROXY = shutil.which("haproxy")

needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")


@dataclass
class Engine:
    """Holds each request until ``release``; ``seen`` are those that reached it, in their order. Until it is
    ``ready`` it does not answer checks."""

    port: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[web.Request] = field(default_factory=list)
    held: list[asyncio.Event] = field(default_factory=list)
    most_open: int = 0
    open: int = 0

    def release(self) -> None:
        """The oldest one that is held."""
        next(event for event in self.held if not event.is_set()).set()

    def release_all(self) -> None:
        for event in self.held:
            event.set()

    async def tell_ready(self, _: web.Request) -> web.Response:
        """No answer before it is."""
        await self.ready.wait()
        return web.Response()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        event = asyncio.Event()
        self.seen.append(request)
        self.held.append(event)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await event.wait()
        self.open -= 1
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass
class Bench:
    """A door, its engines and a client."""

    url: str
    engines: list[Engine]
    process: asyncio.subprocess.Process
    session: aiohttp.ClientSession
    absent: list[Engine]  # which nobody has started

    def ask(self, **headers: str) -> asyncio.Task[tuple[int, Mapping[str, str], str]]:
        async def ask() -> tuple[int, Mapping[str, str], str]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with self.session.get(f"{self.url}/v1/test", headers=named) as response:
                return response.status, response.headers, await response.text()

        return asyncio.create_task(ask())

    async def admin(self, path: str) -> str:
        """What the door says of itself."""
        async with self.session.get(f"{self.url.rpartition(':')[0]}:{self.admin_port}{path}") as response:
            return await response.text()

    async def held(self) -> int:
        """Requests that wait for a first engine."""
        return int(await self.admin("/held"))

    async def waiting(self) -> int:
        """Requests in the door's queue, in its own words."""
        text = await self.admin("/metrics")
        line = next(
            line
            for line in text.splitlines()
            if line.startswith('haproxy_backend_current_queue{proxy="engines"')
        )
        return int(float(line.split()[-1]))

    @property
    def admin_port(self) -> int:
        return int(self.url.rpartition(":")[2]) + 1

    async def is_closed(self) -> bool:
        """To a new connection."""
        try:
            async with aiohttp.ClientSession() as fresh, fresh.get(self.url):
                return False
        except aiohttp.ClientError:
            return True

    async def queued(self, count: int) -> None:
        await until(lambda: self.waiting(), count)


async def until(look: Callable[[], Coroutine[None, None, object]], wanted: object) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await look() != wanted:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)


def free_ports() -> int:
    """The first of two that are free."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@asynccontextmanager
async def started(engine: Engine, *, is_ready: bool = True) -> AsyncIterator[None]:
    """While it listens."""
    if is_ready:
        engine.ready.set()
    app = web.Application()
    app.router.add_get("/ready", engine.tell_ready)
    app.router.add_get("/v1/test", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", engine.port).start()
        yield
    finally:
        engine.release_all()
        await runner.cleanup()


@asynccontextmanager
async def door(
    folder: Path,
    limits: list[int],
    *,
    dead: int = 0,
    hold_seconds: int | None = None,
    are_ready: bool = True,
) -> AsyncIterator[Bench]:
    """Before one engine a limit, and ``dead`` ones that nobody listens for."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(running_engine(is_ready=are_ready)) for _ in limits]
        pools = [
            DoorPool(f"e{index}", "127.0.0.1", engine.port, limit)
            for index, (engine, limit) in enumerate(zip(engines, limits, strict=True))
        ]
        absent = [Engine(free_ports()) for _ in range(dead)]
        pools += [DoorPool(f"d{index}", "127.0.0.1", each.port, 64) for index, each in enumerate(absent)]
        yield await stack.enter_async_context(
            proxy(folder, pools, engines, absent, hold_seconds=hold_seconds)
        )


@asynccontextmanager
async def pair(folder: Path, limits: list[int]) -> AsyncIterator[tuple[Bench, Bench]]:
    """The first door and the second, before the same engines."""
    second = folder / "second"
    second.mkdir()
    async with door(folder, limits) as first:
        port = int(first.url.rpartition(":")[2])
        pools = [
            DoorPool(f"e{index}", "127.0.0.1", engine.port, limit)
            for index, (engine, limit) in enumerate(zip(first.engines, limits, strict=True))
        ]
        place = DoorPool("first-1", "127.0.0.1", port, 0)
        async with proxy(second, pools, first.engines, [], first=place) as standing_by:
            yield first, standing_by


@asynccontextmanager
async def running_engine(*, is_ready: bool = True) -> AsyncIterator[Engine]:
    engine = Engine(free_ports())
    async with started(engine, is_ready=is_ready):
        yield engine


@asynccontextmanager
async def proxy(
    folder: Path,
    pools: list[DoorPool],
    engines: list[Engine],
    absent: list[Engine],
    *,
    hold_seconds: int | None = None,
    first: DoorPool | None = None,
) -> AsyncIterator[Bench]:
    port = free_ports()
    config, hold = folder / "haproxy.cfg", None
    if hold_seconds is not None:
        hold = Hold(str(folder / "hold.lua"), QUEUE, hold_seconds)
        (folder / "hold.lua").write_text(hold_script(hold))
    admin = port + 1 if first is None else first.port + 1
    text = door_config(Door(port, admin, QUEUE, 60, pools, connections=200, hold=hold, first=first))
    config.write_text(text.replace(f"bind :{admin}", f"bind :{port + 1}"))  # the pair has one host here
    assert HAPROXY is not None
    async with AsyncExitStack() as stack:
        process = await asyncio.create_subprocess_exec(HAPROXY, "-db", "-f", str(config))
        stack.push_async_callback(end, process)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
            )
        )
        bench = Bench(f"http://127.0.0.1:{port}", engines, process, session, absent)

        async def is_up() -> bool:
            try:
                return await bench.admin("/healthz") is not None
            except aiohttp.ClientError:
                return False

        await until(is_up, True)
        yield bench


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def seen(engine: Engine, count: int) -> None:
    async def look() -> bool:
        return len(engine.seen) >= count

    await until(look, True)
