"""One client's connection: how long and how much it may send before it is answered; how many there are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dllm_server.api.schemas.errors import ApiError
from dllm_server.settings import ApiSettings
from dllm_server.telemetry.request_id import REQUEST_ID_HEADER, choose_request_id, request_id_of

log = structlog.get_logger(__name__)

_OFFERS = frozenset({b"upgrade", b"connection", b"http2-settings"})
_FRAMING_PER_BYTE = 8  # a chunk of one byte takes five more to frame


class Phase(Enum):
    """What the client is sending."""

    NOTHING = auto()
    HEADERS = auto()  # or is silent on a connection that has never had a request
    BODY = auto()


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    connections: int
    header_bytes: int
    header_seconds: float
    body_seconds: float
    write_seconds: float

    @classmethod
    def of(cls, settings: ApiSettings) -> ConnectionLimits:
        return cls(
            settings.max_connections,
            settings.max_header_bytes,
            settings.header_timeout_seconds,
            settings.body_timeout_seconds,
            settings.write_timeout_seconds,
        )


def guarded_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The class of uvicorn's connections under these limits."""
    return type("GuardedConnection", (Connection,), {"limits": limits})


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which of itself waits for ever and reads headers without end.

    What is refused here is answered in OpenAI's shape, under an id that is in the log, and closed. A running
    answer is never cut by what its client sends behind its request.
    """

    limits: ConnectionLimits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = Phase.NOTHING
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._began = self.loop.time()
        self._sent_bytes = 0  # by the client in this phase
        self._header_bytes = 0  # of names and values in this request
        self._body_bytes = 0  # of this request, without framing

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return not self.pipeline and (self.cycle is None or self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enter(Phase.HEADERS)
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._read_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._read_timer = self._write_timer = None
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._phase is Phase.NOTHING:
            self._enter(Phase.HEADERS)
        while data and not self.transport.is_closing():
            self._sent_bytes += len(data)
            try:
                self.parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:
                data = self._decline_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserError:
                data = b""
                self._refuse(400, "invalid_http", "The bytes sent are no HTTP/1.1 request.")
        self._check_sizes()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = self._body_bytes = 0
        if self._phase is not Phase.HEADERS:
            self._enter(Phase.HEADERS)

    def on_url(self, url: bytes) -> None:
        self._header_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._phase is Phase.HEADERS:  # trailers come after the answer may have begun: they change nothing
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # read again by ``_decline_upgrade``
        self._enter(Phase.BODY)
        if self._header_bytes > self.limits.header_bytes:
            self._refuse_headers()
        elif not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle is not None and not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._enter(Phase.NOTHING)
        if self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_if_unread()

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._abort_if_unread()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_if_unread()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_if_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _decline_upgrade(self, rest: bytes) -> bytes:
        """What to read instead of a request that offers another protocol (HTTP/2 by Java's client): the same
        without the offer. The parser would take its body for that protocol."""
        method, self.parser = self.parser.get_method(), httptools.HttpRequestParser(self)
        if method == b"CONNECT":
            self._refuse(405, "method_not_allowed", "CONNECT is not allowed: this server is no proxy.")
            return b""
        kept = [(name, value) for name, value in self.headers if name not in _OFFERS]
        if any(b"close" in value.lower() for name, value in self.headers if name == b"connection"):
            kept.append((b"connection", b"close"))
        lines = [b"%s %s HTTP/1.1" % (method, self.url), *(b"%s: %s" % header for header in kept), b"", b""]
        self._sent_bytes = 0
        return b"\r\n".join(lines) + rest

    def _enter(self, phase: Phase) -> None:
        """Begin to wait for the end of a phase."""
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._read_timer = None
        self._phase, self._sent_bytes = phase, 0
        if phase is not Phase.NOTHING:
            self._await_end()

    def _await_end(self) -> None:
        is_headers = self._phase is Phase.HEADERS
        seconds = self.limits.header_seconds if is_headers else self.limits.body_seconds
        self._read_timer = self.loop.call_later(seconds, self._give_up_reading)

    def _give_up_reading(self) -> None:
        is_behind_an_answer = self._phase is Phase.HEADERS and not self.is_idle
        if self.flow.read_paused or is_behind_an_answer:
            self._await_end()  # it is us who do not read, or an answer is on its way
        elif self._phase is Phase.BODY:
            message = f"The body did not come within {self.limits.body_seconds:g} seconds"
            self._refuse(408, "body_timeout", f"{message} (body_timeout_seconds).")
        elif self._sent_bytes:
            message = f"The headers did not come within {self.limits.header_seconds:g} seconds"
            self._refuse(408, "header_timeout", f"{message} (header_timeout_seconds).")
        else:
            self._close()  # it never said a word

    def _check_sizes(self) -> None:
        """What the parser is still holding: a header or trailer without end, or framing without a body."""
        if self.transport.is_closing():
            return
        most = self.limits.header_bytes
        if self._phase is Phase.HEADERS and self._sent_bytes > most:
            self._refuse_headers()
        elif (
            self._phase is Phase.BODY
            and self._sent_bytes > most + _FRAMING_PER_BYTE * self._body_bytes + 65_536
        ):
            self._refuse(400, "invalid_http", "The body's framing is larger than the body.")

    def _refuse_headers(self) -> None:
        message = f"The headers exceed {self.limits.header_bytes} bytes (max_header_bytes): send fewer."
        self._refuse(431, "headers_too_large", message)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer and close; or, behind a running answer that is not this request's, read no more."""
        is_being_read = self._phase is Phase.BODY and self.cycle is not None and not self.pipeline
        has_begun = self.cycle is not None and self.cycle.response_started
        if not self.is_idle and not is_being_read:
            self._read_no_more()
        elif self.is_idle or not has_begun:
            self._answer(status, code, message, is_of_cycle=not self.is_idle)
        else:
            self._close()

    def _answer(self, status: int, code: str, message: str, *, is_of_cycle: bool = False) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = ApiError(status, message, error_type=kind, code=code)
        if is_of_cycle:  # its own line in the log says why
            request_id = request_id_of(self.cycle.scope)  # type: ignore[arg-type]
            self.cycle.scope["state"]["refusal"] = error.told()
        else:
            request_id = choose_request_id(self.headers or ())
            log.info("connection refused", request_id=request_id, status=status, **error.told())
        content = error.content()
        retry = b"Retry-After: 1\r\n" if status == 503 else b""
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
            + b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n" % len(content)
            + retry
            + b"%s: %s\r\n\r\n" % (REQUEST_ID_HEADER, request_id.encode())
            + content
        )
        self._close()

    def _read_no_more(self) -> None:
        """Let what runs be answered, and close then."""
        self.flow.pause_reading()
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.keep_alive = False

    def _make_room(self) -> None:
        """Give up the oldest connection that waits for nothing; if all wait for an answer, this one."""
        others = (other for other in self.connections if isinstance(other, Connection) and other is not self)
        idle = [other for other in others if other.is_idle and not other.transport.is_closing()]
        if idle:
            min(idle, key=lambda other: other._began).transport.abort()
            return
        message = f"{self.limits.connections} connections are open (max_connections): retry later."
        self._answer(503, "too_many_connections", message)

    def _close(self) -> None:
        self.transport.close()
        self._abort_if_unread()

    def _abort_if_unread(self) -> None:
        """Cut a client that does not take what it asked for in time; nothing happens when it does."""
        if self._write_timer is None and self.transport.get_write_buffer_size():
            self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)
