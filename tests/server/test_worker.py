"""The real engine process behind its sockets: events, cancels, deaths, refusals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.asyncio
from checkpoints import Size, make_checkpoint, make_config, write_config
from dllm_server.engine.process.client import EngineDeadError, EngineStartError
from dllm_server.engine.process.worker import ProcessEngineClient, start_engine
from dllm_server.engine.requests.messages import BlockCommitted, Finished, FinishReason
from engines import make_engine, make_request, make_settings, run_alone

DEADLINE_SECONDS = 120.0


@asynccontextmanager
async def running(model: Path) -> AsyncIterator[ProcessEngineClient]:
    client = await start_engine(make_settings(model))
    try:
        yield client
    finally:
        await client.close()


async def until(condition: Callable[[], bool]) -> None:
    """Poll until something holds; a deadline makes a failure of a hang."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, "the deadline passed"
        await asyncio.sleep(0.01)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 2 * DEADLINE_SECONDS))  # type: ignore[arg-type]


def used(client: ProcessEngineClient) -> int:
    return -1 if client.snapshot is None else client.snapshot.kv_pages["used"]


def test_a_life_of_the_engine_process(tmp_path: Path) -> None:
    """One process, as starting one takes seconds: events, concurrent requests, cancel, duplicate id, end."""
    model = make_checkpoint(tmp_path)
    alone = run_alone(make_engine(model), make_request(max_tokens=40)).tokens

    async def scenario() -> None:
        async with running(model) as client:
            await check_events(client, alone)
            await check_concurrency(client, alone)
            await check_cancel(client)
            await check_duplicate(client)
            process = psutil.Process(client.pid)
        assert not process.is_running()
        assert await client.wait_until_dead() == 0
        with pytest.raises(EngineDeadError):
            await anext(client.generate(make_request()))

    run(scenario)


async def check_events(client: ProcessEngineClient, alone: list[int]) -> None:
    events = [event async for event in client.generate(make_request("a", max_tokens=40))]

    assert all(isinstance(event, BlockCommitted) for event in events[:-1])
    assert isinstance(events[-1], Finished)
    assert events[-1].reason is FinishReason.LENGTH
    assert [token for event in events[:-1] for token in event.token_ids] == alone  # type: ignore[union-attr]


async def check_concurrency(client: ProcessEngineClient, alone: list[int]) -> None:
    async def tokens(number: int) -> list[int]:
        request = make_request(f"c{number}", max_tokens=40)
        events = [event async for event in client.generate(request)]
        return [t for event in events if isinstance(event, BlockCommitted) for t in event.token_ids]

    assert await asyncio.gather(*(tokens(number) for number in range(20))) == [alone] * 20


async def check_cancel(client: ProcessEngineClient) -> None:
    long = make_request("long", prompt=[1], max_tokens=127, block_length=1, refresh_interval=None)
    events = client.generate(long)
    await anext(events)

    await events.aclose()

    await until(lambda: client.snapshot is not None and client.snapshot.cancelled_total >= 1)
    await until(lambda: used(client) == 0)
    assert client.is_alive


async def check_duplicate(client: ProcessEngineClient) -> None:
    first = client.generate(make_request("same", max_tokens=100, block_length=1))
    await anext(first)

    with pytest.raises(ValueError, match="already in use"):
        await anext(client.generate(make_request("same")))

    rest = [event async for event in first]
    assert isinstance(rest[-1], Finished)


def test_an_engine_that_is_killed_ends_every_open_request(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path)

    async def scenario() -> None:
        async with running(model) as client:
            os.kill(client.pid, signal.SIGSTOP)
            opened = [client.generate(make_request(str(number))) for number in range(3)]
            waiting = [asyncio.ensure_future(anext(events)) for events in opened]
            await asyncio.sleep(0)
            os.kill(client.pid, signal.SIGKILL)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(result) for result in results] == [EngineDeadError] * 3
            assert await client.wait_until_dead() == -signal.SIGKILL
            assert not client.is_alive
            with pytest.raises(EngineDeadError):
                await anext(client.generate(make_request("late")))

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architectures": ["Unknown"]}, "architectures names Unknown"),
        ({}, "holds neither model.safetensors"),
    ],
)
def test_an_engine_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, changes: dict[str, list[str]], problem: str
) -> None:
    write_config(tmp_path, make_config(Size()) | changes)

    async def scenario() -> None:
        with pytest.raises(EngineStartError, match=problem) as refused:
            await start_engine(make_settings(tmp_path))
        assert "\n" not in str(refused.value)

    run(scenario)


PARENT = """
import asyncio, sys
from dllm_server.engine.process.worker import start_engine
from dllm_server.settings import EngineSettings

async def main():
    client = await start_engine(EngineSettings.model_validate_json(sys.argv[1]))
    print(client.pid, flush=True)
    await client.wait_until_dead()

asyncio.run(main())
"""


def test_the_engine_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    settings = make_settings(make_checkpoint(tmp_path)).model_dump_json()
    command = [sys.executable, "-c", PARENT, settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = next(line for line in parent.stdout if line.strip().isdigit())  # the engine logs there as well
        engine = psutil.Process(int(pid))
        parent.kill()

    engine.wait(DEADLINE_SECONDS)


class EndedProcess:
    """Has ended, which nobody has heard of yet."""

    pid, returncode = 0, 1

    def __init__(self) -> None:
        self.is_heard = asyncio.Event()

    async def wait(self) -> int:
        await self.is_heard.wait()
        return 1

    def kill(self) -> None:
        self.is_heard.set()
        raise ProcessLookupError


def test_an_engine_that_has_ended_before_it_is_killed_is_no_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
        directory = tempfile.TemporaryDirectory(dir=tmp_path)
        client = ProcessEngineClient(EndedProcess(), socket, directory)  # type: ignore[arg-type]

        await client.close()

        with pytest.raises(EngineStartError, match="ended with exit code 1 while starting"):
            await client.wait_until_started()

    run(scenario)
