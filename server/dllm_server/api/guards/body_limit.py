"""The largest request body, held while it arrives."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.guards.body_shape import check_body_shape
from dllm_server.api.schemas.errors import ApiError, body_too_large, compressed_body


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
        try:
            body = await self._read(Headers(scope=scope), receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if body is None:
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
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
            body += message.get("body", b"")
            if len(body) > self._limit_bytes:
                raise body_too_large(self._limit_bytes)
            if not message.get("more_body", False):
                check_body_shape(body)
                return bytes(body)
