"""The client of the engine process: spawns it and talks to it. One ZeroMQ pair socket carries msgpack lists
of messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
import zmq
import zmq.asyncio

from dllm_server.cause import Explanation
from dllm_server.engine.process.client import EngineDeadError, EngineStartError, RequestEvent
from dllm_server.engine.requests.messages import (
    Cancel,
    EngineSnapshot,
    Failed,
    Finished,
    FromEngine,
    Generate,
    ModelInfo,
    Ready,
    Score,
    Scored,
    Shutdown,
    StartFailed,
    ToEngine,
)
from dllm_server.settings import EngineSettings, LogSettings
from dllm_server.termination import Termination

log = structlog.get_logger(__name__)

ENGINE_PROGRAM = ("-m", "dllm_server.engine.process")
_STOP_SECONDS = 5.0  # for a step to end, and again for the kernel to end the process


class ProcessEngineClient:
    """``EngineClient`` over a child process. Construct with ``start_engine``."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        socket: zmq.asyncio.Socket,
        directory: tempfile.TemporaryDirectory[str],
    ) -> None:
        self._process, self._socket, self._directory = process, socket, directory
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(list[FromEngine])
        self._queues: dict[str, asyncio.Queue[RequestEvent | Scored | None]] = {}
        self._snapshot: EngineSnapshot | None = None
        self._is_alive = True
        self._model: ModelInfo | None = None
        self._started: asyncio.Future[ModelInfo] = asyncio.get_running_loop().create_future()
        self._receiving = asyncio.create_task(self._receive())
        self._receiving.add_done_callback(self._stop_deaf_engine)
        self._watching = asyncio.create_task(self._watch())

    @property
    def model(self) -> ModelInfo:
        if self._model is None:
            raise RuntimeError("the engine has not started")
        return self._model

    @property
    def is_alive(self) -> bool:
        return self._is_alive

    @property
    def snapshot(self) -> EngineSnapshot | None:
        return self._snapshot

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait_until_started(self) -> None:
        self._model = await self._started

    def generate(self, request: Generate) -> AsyncIterator[RequestEvent]:
        """See ``EngineClient.generate``. Raises ``ValueError`` for a request id that is still open."""
        return cast("AsyncIterator[RequestEvent]", self._events(request))

    async def score(self, request: Score) -> Scored | Finished | Failed:
        """See ``EngineClient.score``. Raises as ``generate`` does."""
        async with aclosing(self._events(request)) as events:
            return cast("Scored | Finished | Failed", await anext(events))

    async def _events(self, request: Generate | Score) -> AsyncGenerator[RequestEvent | Scored]:
        if request.request_id in self._queues:
            raise ValueError(f"request id {request.request_id} is already in use")
        if not self._is_alive:
            raise EngineDeadError("the engine process has ended")
        queue: asyncio.Queue[RequestEvent | Scored | None] = asyncio.Queue()
        self._queues[request.request_id] = queue
        is_over = False
        try:
            self._send(request)
            while not is_over:
                event = await queue.get()
                if event is None:
                    is_over = True
                    raise EngineDeadError("the engine process has ended")
                is_over = isinstance(event, Finished | Scored | Failed)
                yield event
        finally:
            del self._queues[request.request_id]
            if not is_over and self._is_alive:
                self._send(Cancel(request.request_id))

    async def wait_until_dead(self) -> int:
        await asyncio.shield(self._watching)
        return self._process.returncode if self._process.returncode is not None else -1

    async def close(self) -> None:
        if self._is_alive and self._model is not None:
            self._send(Shutdown())
            await asyncio.wait({self._watching}, timeout=_STOP_SECONDS)
        if self._is_alive:  # starting, when it reads no messages, or in a long step
            self._kill()
            await asyncio.wait({self._watching}, timeout=_STOP_SECONDS)
        if self._is_alive:
            log.error("the engine process does not end", pid=self._process.pid)
        self._receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiving
        self._socket.close(linger=0)
        self._directory.cleanup()

    def _send(self, message: ToEngine) -> None:
        sending = self._socket.send(self._encoder.encode([message]))
        asyncio.ensure_future(sending).add_done_callback(_forget)

    def _stop_deaf_engine(self, receiving: asyncio.Task[None]) -> None:
        """An engine whose messages cannot be read serves nobody: end it, so that everyone is told."""
        if not receiving.cancelled() and self._is_alive:
            log.error("messages of the engine cannot be read", error=repr(receiving.exception()))
            self._kill()

    def _kill(self) -> None:
        """It may have ended before ``_watch`` hears of it, which is no error."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _receive(self) -> None:
        while True:
            for message in self._decoder.decode(await self._socket.recv()):
                self._dispatch(message)

    def _dispatch(self, message: FromEngine) -> None:
        match message:
            case EngineSnapshot():
                self._snapshot = message
            case Ready(model):
                if not self._started.done():
                    self._started.set_result(model)
            case StartFailed(reason, text, cause, numbers):
                if not self._started.done():
                    end = Termination.of_start(reason, Explanation(cause, numbers))
                    self._started.set_exception(EngineStartError(end, text))
            case _:
                queue = self._queues.get(message.request_id)  # None: cancelled meanwhile
                if queue is not None:
                    queue.put_nowait(message)

    async def _watch(self) -> None:
        code = await self._process.wait()
        self._is_alive = False
        if not self._started.done():
            # A last word may still be on its way through the socket.
            with contextlib.suppress(TimeoutError, EngineStartError):
                await asyncio.wait_for(asyncio.shield(self._started), 1.0)
        if not self._started.done():
            end = Termination.of_engine(code, is_starting=True)
            self._started.set_exception(EngineStartError(end))
        for queue in self._queues.values():
            queue.put_nowait(None)


def _forget(sending: asyncio.Future[Any]) -> None:
    """A message to an engine that has ended goes nowhere; ``_watch`` tells everyone."""
    if not sending.cancelled():
        sending.exception()


async def start_engine(
    settings: EngineSettings, logs: LogSettings | None = None, *, program: Sequence[str] = ENGINE_PROGRAM
) -> ProcessEngineClient:
    """Spawn the engine process and wait until it is ready; ``EngineStartError`` carries one clear line.

    ``program`` is what Python is told to run; it gets the socket's address, both settings and our process id.
    """
    logs = logs or LogSettings()
    directory = tempfile.TemporaryDirectory(prefix="dllm-")
    endpoint = f"ipc://{Path(directory.name) / 'engine.sock'}"
    socket = zmq.asyncio.Context.instance().socket(zmq.PAIR)
    socket.set_hwm(0)
    socket.bind(endpoint)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *program,
            endpoint,
            settings.model_dump_json(),
            logs.model_dump_json(),
            str(os.getpid()),
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
        )
    except BaseException:
        socket.close(linger=0)
        directory.cleanup()
        raise
    client = ProcessEngineClient(process, socket, directory)
    try:
        await client.wait_until_started()
    except BaseException:
        await client.close()
        raise
    return client
