"""The serving process: engine process, HTTP server, signals, and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from errno import EADDRINUSE
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from uvicorn.server import ServerState

from dllm_server.api.app import create_app, create_service
from dllm_server.api.guards.auth import KeyFile, open_keys
from dllm_server.api.guards.connection import ConnectionLimits, guarded_protocol
from dllm_server.api.guards.heap import tame_heap
from dllm_server.api.guards.lifecycle import ServingState
from dllm_server.api.routes.metrics import create_metrics_app
from dllm_server.api.schemas.errors import engine_dead, shutting_down
from dllm_server.api.service import Service
from dllm_server.cause import Cause, Explanation
from dllm_server.engine.process.client import EngineStartError
from dllm_server.engine.process.worker import ProcessEngineClient, start_engine
from dllm_server.engine.requests.decoding import diffusion_defaults, server_misfit
from dllm_server.extras import MissingPackageError
from dllm_server.logs import configure_logging
from dllm_server.models.tokenizer import load_tokenizer
from dllm_server.settings import ApiSettings, EngineSettings, LogSettings, ServeSettings
from dllm_server.stop_signals import listen
from dllm_server.termination import FORCED_EXIT_CODE, Termination, TerminationReason, termination_log
from dllm_server.tracing import Tracer, open_tracer

log = structlog.get_logger(__name__)

_LAST_ANSWERS_SECONDS = 2.0  # kept of the grace period for answers that say why a request was given up
_SWITCH_SECONDS = 0.0005  # after which a thread's Python gives the interpreter's lock back to the loop
_OTHER_FILES = 128  # sockets of the engine, logs, libraries

StartEngine = Callable[[EngineSettings, LogSettings], Awaitable[ProcessEngineClient]]


def run_server(settings: ServeSettings, *, start: StartEngine = start_engine) -> int:
    """Serve until told to stop or the engine process ends; returns the exit code.

    0 after SIGTERM or SIGINT, 1 when the server cannot start, 86 when the device is out of memory, the
    engine's own code (128 + signal) when it ends, 130 when a second signal cuts the shutdown short. Why it
    ended without being told to is also left in the termination log.
    """
    configure_logging(settings.logs())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, start))
    except EngineStartError as error:
        end, message = error.termination, str(error)
    except MissingPackageError as error:
        end = Termination.of_start(TerminationReason.START_FAILED, Explanation(Cause.PACKAGE))
        message = str(error)
    except (ValueError, OSError) as error:
        why = getattr(error, "why", Explanation(Cause.START))
        end, message = Termination.of_start(TerminationReason.START_FAILED, why), str(error)
    log.error("cannot start", reason=message, kind=end.reason, exit_code=end.exit_code)
    end.write(termination_log())
    return end.exit_code


async def _serve(settings: ServeSettings, start: StartEngine) -> int:
    stop = asyncio.Event()
    listen(stop)
    # Before the engine takes its minutes: a missing file or a busy port is known at once.
    keys = open_keys(settings.api_keys_file)
    tracer = open_tracer("dllm-server")
    allow_open_files(settings.max_connections * (1 if settings.metrics_port is None else 2))
    with contextlib.ExitStack() as open_listeners:
        listener = open_listeners.enter_context(bind(settings.host, settings.port))
        metrics_listener = None
        if settings.metrics_port is not None:
            metrics_listener = bind(settings.host, settings.metrics_port, flag="--metrics-port")
            open_listeners.enter_context(metrics_listener)
        log.info("starting engine", model=settings.model)
        starting = asyncio.ensure_future(_open_service(settings, start, tracer))
        told_to_stop = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        told_to_stop.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            log.info("stopped while starting")
            return 0
        service = starting.result()
        try:
            server = Server(service, listener, stop, keys, termination_log(), metrics_listener)
            _tidy_start()
            await asyncio.sleep(0)  # hear of signals that came meanwhile
            return 0 if stop.is_set() else await server.run()
        finally:
            service.text_workers.close()
            await service.grammars.close()
            await service.engine.close()
            if tracer is not None:
                tracer.close()


async def _open_service(settings: ServeSettings, start: StartEngine, tracer: Tracer | None) -> Service:
    """A running engine and its tokenizer, which is read in a thread, so that signals are heard. Nothing waits
    for that thread where this is cancelled."""
    engine = await start(settings.engine(), settings.logs())
    thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
    try:
        model = engine.model
        read = partial(
            load_tokenizer,
            Path(model.directory),
            mask_token_id=model.mask_token_id,
            eos_token_ids=model.eos_token_ids,
        )
        tokenizer = await asyncio.get_running_loop().run_in_executor(thread, read)
        if (found := server_misfit(settings, model.blocks)) is not None:
            raise ValueError(f"{found[0]} does not fit the model: {found[1]}: leave it out")
        diffusion = diffusion_defaults(settings, model.blocks)
        return create_service(settings.api(), engine, tokenizer, diffusion, tracer)
    except BaseException:
        await engine.close()
        raise
    finally:
        thread.shutdown(wait=False)


class ListenError(OSError):
    """The address cannot be listened on."""

    why = Explanation(Cause.ADDRESS)


class Server:
    """Runs uvicorn on a bound socket until a signal or the engine's end, then lets it finish.

    Metrics on a socket of their own have connections of their own, under the same limits, and answer to the
    end.
    """

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        stop: asyncio.Event,
        keys: KeyFile | None,
        termination_file: Path | None = None,
        metrics_listener: socket.socket | None = None,
    ) -> None:
        self._service = service
        self._listener = listener
        self._metrics_listener = metrics_listener
        self._stop = stop
        self._termination_file = termination_file
        self._http = _SignalFreeServer(_config(create_app(service, keys), service.settings))
        self._metrics = _SignalFreeServer(_config(create_metrics_app(service), service.settings))

    @property
    def http_state(self) -> ServerState:
        """uvicorn's record of open connections and running handlers."""
        return self._http.server_state

    async def run(self) -> int:
        async with self._serving_metrics() as metrics:
            return await self._run(metrics)

    @contextlib.asynccontextmanager
    async def _serving_metrics(self) -> AsyncIterator[asyncio.Future[Any] | None]:
        """The task that serves them on their own socket, if they have one."""
        if self._metrics_listener is None:
            yield None
            return
        self._metrics_listener.listen()
        serving = asyncio.ensure_future(self._metrics.serve(sockets=[self._metrics_listener]))
        log.info("serving metrics", url=_url(self._metrics_listener))
        try:
            yield serving
        finally:
            self._metrics.should_exit = True
            await serving

    async def _run(self, metrics: asyncio.Future[Any] | None) -> int:
        self._listener.listen()
        serving = asyncio.ensure_future(self._http.serve(sockets=[self._listener]))
        dying = asyncio.ensure_future(self._service.engine.wait_until_dead())
        stopping = asyncio.ensure_future(self._stop.wait())
        log.info("listening", url=_url(self._listener), model=self._service.model_name)
        try:
            servers = {serving, *([metrics] if metrics is not None else ())}
            await asyncio.wait({*servers, dying, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for ended in servers:
                if ended.done():
                    ended.result()
                    raise OSError("the HTTP server ended by itself")
            code = await (self._drain(dying) if not dying.done() else self._give_up(dying.result()))
            self._http.should_exit = True
            await serving
            log.info("stopped", exit_code=code)
            return code
        finally:
            for task in (dying, stopping):
                task.cancel()
            self._http.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)

    async def _drain(self, dying: asyncio.Future[Any]) -> int:
        """Let clients move on, then refuse new requests and finish open ones within the grace period."""
        service = self._service
        self._stop.clear()
        service.lifecycle.move_to(ServingState.LEAVING)
        await self._wait_for_clients(dying)
        service.lifecycle.move_to(ServingState.DRAINING)
        log.info("draining", open_choices=service.admission.open_choices)
        grace = service.settings.shutdown_grace_seconds
        grace -= min(_LAST_ANSWERS_SECONDS, grace / 2)
        idle: asyncio.Future[Any] = asyncio.ensure_future(service.admission.wait_until_idle())
        again: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        try:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait([idle, dying, again], timeout=grace, return_when=first)
            if idle.done():
                return 0
            if dying.done():
                return await self._give_up(dying.result())
            log.warning("requests given up", open_choices=service.admission.open_choices)
            service.admission.fail_all(shutting_down())
            self._http.force_exit = again.done()
            return FORCED_EXIT_CODE if again.done() else 0
        finally:
            idle.cancel()
            again.cancel()

    async def _wait_for_clients(self, dying: asyncio.Future[Any]) -> None:
        """The delay in which clients move on; a second signal ends it, and waits for no request."""
        delay = self._service.settings.shutdown_delay_seconds
        if delay <= 0:
            return
        log.info("leaving", seconds=delay)
        again: asyncio.Future[Any] = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([dying, again], timeout=delay, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()

    async def _give_up(self, engine_exit_code: int) -> int:
        """Answer what is open with 503 now that the engine is gone; the termination log gets the reason."""
        self._service.lifecycle.move_to(ServingState.FAILED)
        end = Termination.of_engine(engine_exit_code)
        end.write(self._termination_file)
        log.error(
            "engine process ended",
            reason=end.message,
            exit_code=engine_exit_code,
            open_choices=self._service.admission.open_choices,
        )
        self._service.admission.fail_all(engine_dead())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._service.admission.wait_until_idle(), _LAST_ANSWERS_SECONDS)
        return end.exit_code


def _config(app: Starlette, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=guarded_protocol(ConnectionLimits.of(settings)),
        ws="none",
        timeout_keep_alive=math.ceil(settings.keep_alive_timeout_seconds),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=math.ceil(_LAST_ANSWERS_SECONDS),
        server_header=False,
    )


def _tidy_start() -> None:
    """Keep the loop from being held up by threads, and by collections of what the start has left for good."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    tame_heap()
    gc.collect()
    gc.freeze()


class _SignalFreeServer(uvicorn.Server):
    """Leaves signals to us: uvicorn's own handlers would close connections before requests are finished."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def allow_open_files(connections: int) -> None:
    """Raise the process's limit on open files to what so many connections need, as far as it may."""
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    allowed = needed if hard == unlimited else min(needed, hard)
    if soft != unlimited and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        log.warning("fewer open files than connections", limit=allowed, max_connections=connections)


def bind(host: str, port: int, *, flag: str = "--port") -> socket.socket:
    """A bound socket; ``OSError`` names the address, the reason and the flag to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        remedy = f": stop what listens there, or choose another {flag}" if error.errno == EADDRINUSE else ""
        raise ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}{remedy}") from error
    return listener


def _url(listener: socket.socket) -> str:
    """Where a client on this machine reaches the server."""
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
