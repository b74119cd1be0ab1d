"""Connections are closed one by one while the server leaves, each after an answer."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.guards.lifecycle import Lifecycle, ServingState


class Leaving:
    """ASGI middleware: once told to stop, every answer asks its client to connect anew, to another server."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._lifecycle.state is not ServingState.SERVING:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_and_close)
