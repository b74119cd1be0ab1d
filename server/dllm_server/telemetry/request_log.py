"""One log line and one count for each HTTP request."""

from __future__ import annotations

import re
import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dllm_server.telemetry.request_id import REQUEST_ID_HEADER, request_id_of
from dllm_server.telemetry.request_metrics import RequestMetrics, outcome_of

log = structlog.get_logger(__name__)

COUNTED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
QUIET_PATHS = frozenset({"/health", "/ready", "/metrics", "/snapshot"})

_PARAMETER = re.compile(
    r"[\w.\-]{1,200}", re.ASCII
)  # names and indices; anything else may be a client's text


class RequestLog:
    """ASGI middleware: gives the request its id (``x-request-id``), logs how it ended and counts completions
    by outcome.

    Every line logged below carries the id. Why a request was refused is what the error left in
    ``state["refusal"]`` (see ``refusal``): codes and the parameter's path, never a value. A streamed answer
    that fails after its status line leaves its true outcome in ``state["outcome"]``.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 499  # if the client leaves before there is one
        is_noted = False
        began = time.monotonic()

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID_HEADER, request_id.encode())]
            elif not message.get("more_body", False):
                note()  # before the client can know the answer, so that what it asks next is counted after it
            await send(message)

        def note() -> None:
            nonlocal is_noted
            if not is_noted:
                is_noted = True
                self._note(scope, request_id, status, time.monotonic() - began)

        try:
            await self._app(scope, receive, send_named)
        except Exception:
            status = 500
            raise
        finally:
            note()

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        outcome = scope["state"].get("outcome") or outcome_of(status)
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
            seconds=round(seconds, 4),
            **scope["state"].get("refusal", {}),
        )


def refusal(*, code: str | None, reason: str, param: str | None) -> dict[str, Any]:
    """What the log may say of a refused request: machine-readable words and the parameter's path.

    ``param`` may end in a name that the client made up; one that is not shaped like a name is left out.
    """
    told = {"code": code, "reason": reason, "param": param if param and _PARAMETER.fullmatch(param) else None}
    return {name: value for name, value in told.items() if value is not None}
