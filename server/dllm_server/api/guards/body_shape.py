"""How finely a body may be cut: parsing costs by the value, and the event loop waits for it."""

from __future__ import annotations

import re

from dllm_server.api.schemas.errors import too_many_values

MOST_CONTAINERS = 4_096  # objects and lists: a message is one, a list of text parts several
MOST_STRINGS = 65_536  # names and texts
MOST_VALUES = 524_288  # separated by commas: token ids, above all

# Always matches where a string begins, closed or not, so that no body makes it look twice at a byte.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def check_body_shape(body: bytes | bytearray) -> None:
    """``ApiError`` 400 when a JSON body holds more values than a request needs. Whether it is JSON is the
    parser's part."""
    if _is_coarse(body):
        return
    end = strings = containers = commas = 0
    for match in _STRING.finditer(body):
        strings += 1
        containers += _containers(body, end, match.start())
        commas += body.count(b",", end, match.start())
        end = match.end()
        _check(strings, containers, commas)
    _check(strings, containers + _containers(body, end, len(body)), commas + body.count(b",", end))


def _is_coarse(body: bytes | bytearray) -> bool:
    """Whether no count can be too high, even if all of it stood outside of strings. In JSON a string's first
    quote never follows a backslash."""
    quotes = body.count(b'"') - body.count(b'\\"')
    return (
        quotes <= MOST_STRINGS
        and _containers(body, 0, len(body)) <= MOST_CONTAINERS
        and body.count(b",") <= MOST_VALUES
    )


def _containers(body: bytes | bytearray, start: int, end: int) -> int:
    return body.count(b"[", start, end) + body.count(b"{", start, end)


def _check(strings: int, containers: int, commas: int) -> None:
    if containers > MOST_CONTAINERS:
        raise too_many_values("objects and lists", MOST_CONTAINERS)
    if strings > MOST_STRINGS:
        raise too_many_values("strings", MOST_STRINGS)
    if commas > MOST_VALUES:
        raise too_many_values("values", MOST_VALUES)
