"""The largest request body, held while it arrives."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.guards.body_shape import BodyShape
from dllm_server.api.schemas.errors import ApiError, body_too_large, compressed_body

LARGE_BYTES = 256 * 1024  # parsing more takes milliseconds, in which the loop stands still
BREATH_SECONDS = 0.02
ARRIVED = "arrived_seconds"  # of a scope's state: when all of the request was there, on the monotonic clock


class BodyLimit:
    """ASGI middleware: reads the body up to ``limit_bytes`` and passes it on whole, or answers 413; 415 if it
    is compressed, 400 if it is cut into so many values that reading it would hold up everyone.

    A client that leaves before all of its body has come is not answered. Large bodies are passed on one by
    one with a pause between them.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(Headers(scope=scope), receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if body is None:
            return
        scope.setdefault("state", {})[ARRIVED] = time.monotonic()
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        if len(body) <= LARGE_BYTES:
            await self._app(scope, replay, send)
        else:
            await self._in_turn(scope, replay, send)

    async def _in_turn(self, scope: Scope, replay: Receive, send: Send) -> None:
        """Let the app parse the body a breath after the large one before it, in which others are served."""
        loop = asyncio.get_running_loop()
        await self._turn.acquire()
        has_turn = True

        def give_up_turn() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                self._turn.release()

        async def parsed_next() -> Message:
            message = await replay()
            if has_turn:  # called once the app has done with it, since it parses without a pause
                loop.call_soon(loop.call_later, BREATH_SECONDS, give_up_turn)
            return message

        try:
            await self._app(scope, parsed_next, send)
        finally:
            give_up_turn()

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; None if its client leaves. ``ApiError`` for one that is not taken."""
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise compressed_body()
        announced = headers.get("content-length", "")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._limit_bytes):
            raise body_too_large(self._limit_bytes)
        body, shape = bytearray(), BodyShape()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            body += piece
            if len(body) > self._limit_bytes:
                raise body_too_large(self._limit_bytes)
            shape.add(piece)
            if not message.get("more_body", False):
                return bytes(body)
