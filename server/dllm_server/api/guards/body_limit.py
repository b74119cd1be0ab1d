"""The largest request body, held while it arrives."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.schemas.errors import body_too_large


class BodyLimit:
    """ASGI middleware: reads the body up to ``limit_bytes`` and passes it on whole, or answers 413."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = None if self._announces_too_much(scope) else await self._read(receive)
        if body is None:
            await body_too_large(self._limit_bytes).response()(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    def _announces_too_much(self, scope: Scope) -> bool:
        announced = Headers(scope=scope).get("content-length", "")
        return announced.isdecimal() and (len(announced) > 18 or int(announced) > self._limit_bytes)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or None if it is too large; a client that leaves gives what it sent, and the app sees it
        gone."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._limit_bytes:
                return None
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return bytes(body)
