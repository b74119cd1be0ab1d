"""The real server on a real socket around a scripted engine, in a thread; and waiting for a state."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx
from dllm_server.api.app import create_service
from dllm_server.api.guards.auth import open_keys
from dllm_server.api.server import Server, bind
from dllm_server.api.service import Service
from dllm_server.models.tokenizer import Tokenizer, load_tokenizer
from dllm_server.settings import ApiSettings, DiffusionSettings
from scripted_engine import FIXTURE, Script, ScriptedEngine, count_up

DEADLINE_SECONDS = 120.0


def eventually(is_true: Callable[[], bool], what: str) -> None:
    """Return once ``is_true``; fail naming ``what`` at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.005)


class ScriptedServer:
    """``with ScriptedServer(script) as server``: ``server.http`` is a client of it."""

    def __init__(
        self,
        script: Script = count_up,
        *,
        slots: int = 4,
        tokenizer: Tokenizer | None = None,
        model: dict[str, Any] | None = None,
        diffusion: DiffusionSettings | None = None,
        **settings: Any,
    ) -> None:
        self._script, self._slots, self._model = script, slots, model or {}
        self._tokenizer = tokenizer
        self._diffusion = diffusion or DiffusionSettings(block_length=4)
        self._settings = ApiSettings(host="127.0.0.1", port=0, **settings)
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.exit_code: int | None = None
        self.engine: ScriptedEngine
        self.service: Service
        self.url: str
        self.metrics_url: str

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(DEADLINE_SECONDS), "the server did not start"
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        if self._thread.is_alive():
            self.stop()
            self.call(lambda: self.service.engine.is_alive and self.engine.die(0))
            self.join()

    def call(self, effect: Callable[[], object]) -> None:
        """Run on the server's loop, soon."""
        self._loop.call_soon_threadsafe(effect)

    def stop(self) -> None:
        """What SIGTERM does."""
        self.call(self._stop.set)

    def join(self) -> int | None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"
        return self.exit_code

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.engine = ScriptedEngine(self._script, slots=self._slots, **self._model)
        tokenizer = self._tokenizer or load_tokenizer(FIXTURE)
        self.service = create_service(self._settings, self.engine, tokenizer, self._diffusion)
        listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.listener_address: tuple[str, int] = listener.getsockname()
        self.metrics_listener = None
        if self._settings.metrics_port is not None:
            self.metrics_listener = bind("127.0.0.1", self._settings.metrics_port)
            self.metrics_url = f"http://127.0.0.1:{self.metrics_listener.getsockname()[1]}/metrics"
        keys = open_keys(self._settings.api_keys_file)
        self.server = Server(self.service, listener, self._stop, keys, metrics_listener=self.metrics_listener)
        serving = asyncio.ensure_future(self.server.run())
        await asyncio.sleep(0)  # the socket listens from here on
        self._is_up.set()
        try:
            self.exit_code = await serving
        finally:
            listener.close()
            if self.metrics_listener is not None:
                self.metrics_listener.close()
            self.service.text_workers.close()
            await self.service.grammars.close()
