"""An engine that only waits: it runs so many requests at once, the others queue in it.

    python -m benchmarks.door.engine PORT:SEATS:PACE ...

A request whose body has `user_seconds` takes `user_seconds * PACE` in a seat.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass

from aiohttp import web

CHUNKS = 8
SERVICE_HEADER = "X-Service-Seconds"


@dataclass(frozen=True, slots=True)
class EngineSize:
    port: int
    seats: int
    pace: float

    @classmethod
    def parse(cls, text: str) -> EngineSize:
        port, seats, pace = text.split(":")
        return cls(int(port), int(seats), float(pace))

    def __str__(self) -> str:
        return f"{self.port}:{self.seats}:{self.pace}"


def engine(size: EngineSize) -> web.Application:
    """Answers chats of OpenAI's shape, whole or as a stream, and the probes of every proxy."""
    seats = asyncio.Semaphore(size.seats)

    async def ready(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        async with seats:
            seconds, began = body["user_seconds"] * size.pace, time.perf_counter()
            if body.get("stream"):
                return await stream(request, seconds)
            await asyncio.sleep(seconds)
            took = time.perf_counter() - began
        choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}
        return web.json_response(answer, headers={SERVICE_HEADER: f"{took:.6f}"})

    async def stream(request: web.Request, seconds: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(CHUNKS):
            await asyncio.sleep(seconds / CHUNKS)
            event = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_get("/{probe:.*}", ready)
    return app


async def serve(sizes: list[EngineSize]) -> None:
    """Until it is told to stop."""
    for size in sizes:
        runner = web.AppRunner(engine(size), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", size.port, backlog=2048).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve([EngineSize.parse(argument) for argument in sys.argv[1:]]))
