"""HTTP by hand over a bare socket: for what no client library sends."""

from __future__ import annotations

import json
import socket
from typing import Any

DEADLINE_SECONDS = 120.0


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_SECONDS)


def request_bytes(path: str = "/v1/completions", body: dict[str, Any] | None = None, **headers: str) -> bytes:
    """A POST of ``body``, or a GET without one; header names have ``_`` for ``-``."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: x"]
    if body is not None:
        lines.append(f"Content-Length: {len(content)}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What the server sends, up to and with ``mark``; fails when it hangs up before."""
    answer = b""
    while mark not in answer:
        piece = connection.recv(65536)
        assert piece, f"closed before {mark!r}: {answer!r}"
        answer += piece
    return answer


def read_to_end(connection: socket.socket) -> bytes:
    """What the server sends until it hangs up."""
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer
