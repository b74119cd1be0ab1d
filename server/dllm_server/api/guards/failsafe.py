"""The last resort: what escapes every handler is a bug, and still an answer."""

from __future__ import annotations

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.api.schemas.errors import internal_error

log = structlog.get_logger(__name__)


class Failsafe:
    """ASGI middleware: logs an exception's trace under the request's id and answers 500 in OpenAI's shape.

    An answer that has begun is broken off: the server closes the connection of an incomplete one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            log.exception("request failed")
            if not has_begun:
                await internal_error().response()(scope, receive, send)
