"""The largest request body, held while it arrives."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.guards.body_shape import BodyShape
from dllm_server.api.schemas.errors import ApiError, body_too_large, compressed_body

ARRIVED = "arrived_seconds"  # of a scope's state: when all of the request was there, on the monotonic clock
_IS_LARGE = "has_large_body"  # likewise: whether reading it takes milliseconds


class BodyLimit:
    """ASGI middleware: reads the body up to ``limit_bytes`` and passes it on whole, or answers 413; 415 if it
    is compressed, 400 if it is cut into so many values that reading it would hold up everyone.

    A client that leaves before all of its body has come is not answered.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        shape = BodyShape()
        try:
            body = await self._read(Headers(scope=scope), receive, shape)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if body is None:
            return
        scope.setdefault("state", {}).update({ARRIVED: time.monotonic(), _IS_LARGE: shape.is_large})
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _read(self, headers: Headers, receive: Receive, shape: BodyShape) -> bytes | None:
        """The body; None if its client leaves. ``ApiError`` for one that is not taken."""
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise compressed_body()
        announced = headers.get("content-length", "")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._limit_bytes):
            raise body_too_large(self._limit_bytes)
        body = bytearray()
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


def has_large_body(scope: Scope) -> bool:
    """Whether reading the request's body takes so long that the loop should not wait for it."""
    return bool(scope.get("state", {}).get(_IS_LARGE, False))
