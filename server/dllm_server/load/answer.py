"""A streamed answer as it arrives: server-sent events, and what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MOST_BUFFERED_BYTES = 16 * 1024**2
MOST_MESSAGE = 300
_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,60}")


class EventDecoder:
    """Bytes in pieces of any size to the data of server-sent events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that ``piece`` completes; comments and other fields are left out."""
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        if len(self._rest) > MOST_BUFFERED_BYTES:
            raise ValueError("an event is larger than 16 MiB")
        found = []
        for line in lines:
            if not line and self._data:
                found.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:").removeprefix(b" "))
        return found


class Answer:
    """What the events of one answer have said so far."""

    def __init__(self) -> None:
        self.blocks: list[float] = []
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.queue_seconds: float | None = None
        self.error: str | None = None
        self.is_done = False
        self._has_finished = False

    def add(self, data: str, now: float) -> None:
        if data == "[DONE]":
            self.is_done = True
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            self.error = "stream: not JSON"
            return
        if not isinstance(chunk, dict):
            self.error = "stream: not an object"
            return
        if chunk.get("error"):
            self.error = f"stream: {error_code(chunk)}"
        choices = [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]
        self._has_finished |= any(choice.get("finish_reason") for choice in choices)
        if any(_has_text(choice) for choice in choices):
            self.blocks.append(now)
        usage, stats = chunk.get("usage"), chunk.get("dllm_stats")
        if isinstance(usage, dict):
            self.prompt_tokens, self.completion_tokens = (
                usage.get("prompt_tokens"),
                usage.get("completion_tokens"),
            )
        if isinstance(stats, dict):
            self.queue_seconds = stats.get("queue_seconds")

    def failure(self) -> str | None:
        """The class of failure of a stream that is over."""
        if self.error is None and not (self.is_done or self._has_finished):
            return "stream: broke off"
        return self.error


def error_code(body: Any) -> str:
    """The code, or else the type, of an error object; ``unknown`` where it has none that looks like one."""
    error = _error_object(body)
    for name in ("code", "type"):
        value = error.get(name)
        if value is not None and _CODE.fullmatch(str(value)):
            return str(value)
    return "unknown"


def error_message(body: Any) -> str:
    """In one line; empty where it has none."""
    message = _error_object(body).get("message")
    return " ".join(message.split())[:MOST_MESSAGE] if isinstance(message, str) else ""


def _error_object(body: Any) -> Mapping[str, Any]:
    """OpenAI's, or the body itself, as some servers answer."""
    if not isinstance(body, Mapping):
        return {}
    error = body.get("error")
    return error if isinstance(error, Mapping) else body


def _has_text(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    if not isinstance(delta, Mapping):
        return bool(choice.get("text"))
    return any(
        delta.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")
    )
