"""Server-sent events as bytes."""

from __future__ import annotations


def frame(data: str, event: str | None = None) -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {data}\n\n".encode()
