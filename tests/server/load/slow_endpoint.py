"""A small endpoint of another make, deliberately slow: chats and completions as streams of words, with a role
chunk first, usage last, and counters of its own under vLLM's names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

DEADLINE_SECONDS = 120.0


@dataclass
class Pace:
    """Seconds to the first word, between words, and how many there are; ``slots`` are answered at once, and
    nobody before ``answers_at`` requests were open."""

    first_seconds: float = 0.02
    gap_seconds: float = 0.01
    words: int = 4
    slots: int = 1000
    answers_at: int = 1


@dataclass
class Counted:
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)


class SlowEndpoint:
    """``with SlowEndpoint(Pace(...)) as endpoint``: serves in a thread. ``fail`` names words: a request with
    one is answered by its status, or broken off where that is 0."""

    def __init__(
        self,
        pace: Pace | None = None,
        *,
        has_metrics: bool = True,
        counts_tokens: bool = True,
        fail: dict[str, int] | None = None,
        models: tuple[str, ...] = ("slow",),
        key: str | None = None,
    ) -> None:
        self.pace, self.counted = pace or Pace(), Counted()
        self.bodies: list[dict[str, Any]] = []
        self.most_open = 0
        self._open = 0
        self._has_metrics, self._counts_tokens = has_metrics, counts_tokens
        self._fail, self._models, self._key = fail or {}, models, key
        self._is_up, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        self.url: str

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(DEADLINE_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_SECONDS)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._slots, self._gate = asyncio.Semaphore(self.pace.slots), asyncio.Event()
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/completions", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._is_up.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _list(self, request: web.Request) -> web.Response:
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return web.json_response({"error": {"code": "invalid_api_key"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": name} for name in self._models]})

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._has_metrics:
            raise web.HTTPNotFound
        counted = self.counted
        lines = [
            "# TYPE vllm:request_success counter",
            f'vllm:request_success_total{{finished_reason="length"}} {counted.answered}',
            "# TYPE vllm:prompt_tokens counter",
            f"vllm:prompt_tokens_total {counted.prompt_tokens}",
            "# TYPE vllm:generation_tokens counter",
            f"vllm:generation_tokens_total {counted.completion_tokens}",
        ]
        for name, values in (
            ("vllm:time_to_first_token_seconds", counted.first),
            ("vllm:e2e_request_latency_seconds", counted.end),
        ):
            lines += [
                f"# TYPE {name} histogram",
                f'{name}_bucket{{le="+Inf"}} {len(values)}',
                f"{name}_count {len(values)}",
                f"{name}_sum {sum(values)}",
            ]
        return web.Response(text="\n".join(lines) + "\n")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        began, body = time.perf_counter(), await request.json()
        self.bodies.append(body)
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        if self._open >= self.pace.answers_at:
            self._gate.set()
        try:
            await self._gate.wait()
            async with self._slots:
                return await self._stream(request, body, began)
        finally:
            self._open -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any], began: float) -> web.StreamResponse:
        is_chat = "messages" in body
        text = body["messages"][-1]["content"] if is_chat else body["prompt"]
        if isinstance(text, list):
            text = " ".join(part["text"] for part in text)
        status = next((code for word, code in self._fail.items() if word in text), None)
        if not isinstance(body.get("max_tokens", 1), int):
            error = {"code": "told_to", "message": "max_tokens is\n no number"}
            return web.json_response({"error": error}, status=400)
        if status:
            return web.json_response({"error": {"code": "told_to", "message": "as asked"}}, status=status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        with contextlib.suppress(ConnectionResetError):  # who was cut off has left
            await response.prepare(request)
            await self._say(response, request, text, status, began)
        return response

    async def _say(
        self, response: web.StreamResponse, request: web.Request, text: str, status: int | None, began: float
    ) -> None:
        is_chat = request.path.endswith("chat/completions")
        if is_chat:
            await self._send(response, [{"index": 0, "delta": {"role": "assistant", "content": ""}}])
        words = self.pace.words
        for place in range(words):
            await asyncio.sleep(self.pace.gap_seconds if place else self.pace.first_seconds)
            piece: dict[str, Any] = {"delta": {"content": "word "}} if is_chat else {"text": "word "}
            if place == words - 1:
                piece["finish_reason"] = "length"
            await self._send(response, [{"index": 0, **piece}])
            if place == 0:
                self.counted.first.append(time.perf_counter() - began)
                if status == 0:
                    assert request.transport is not None
                    request.transport.abort()
                    return
        prompt = len(text.split())
        usage = {"prompt_tokens": prompt, "completion_tokens": words, "total_tokens": prompt + words}
        self.counted.end.append(time.perf_counter() - began)
        self.counted.answered += 1
        self.counted.prompt_tokens += prompt
        self.counted.completion_tokens += words
        await self._send(response, [], usage if self._counts_tokens else None)
        await response.write(b"data: [DONE]\n\n")

    async def _send(
        self, response: web.StreamResponse, choices: list[Any], usage: dict[str, int] | None = None
    ) -> None:
        chunk = {
            "id": "1",
            "object": "chunk",
            "created": 1,
            "model": "slow",
            "choices": choices,
            "usage": usage,
        }
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
