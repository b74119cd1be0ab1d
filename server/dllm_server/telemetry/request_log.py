"""One log line and one count for each HTTP request."""

from __future__ import annotations

import time
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.telemetry.request_metrics import RequestMetrics, outcome_of

log = structlog.get_logger(__name__)

COUNTED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
QUIET_PATHS = frozenset({"/health", "/ready", "/metrics"})


class RequestLog:
    """ASGI middleware: names the request in ``x-request-id``, logs how it ended and counts completions by
    outcome.

    A streamed answer that fails after its status line leaves its true outcome in ``request.state.outcome``.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        status = 499  # if the client leaves before there is one
        began = time.monotonic()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            status = 500
            raise
        finally:
            outcome = scope.get("state", {}).get("outcome") or outcome_of(status)
            if scope["path"] in COUNTED_PATHS and scope["method"] == "POST":
                self._metrics.answered(outcome)
            write = log.debug if scope["path"] in QUIET_PATHS else log.info
            write(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                outcome=outcome,
                seconds=round(time.monotonic() - began, 4),
            )
