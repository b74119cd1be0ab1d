"""How finely a body may be cut: parsing costs by the value, and the event loop waits for it."""

from __future__ import annotations

from dllm_server.api.schemas.errors import invalid_request, too_many_values

MOST_CONTAINERS = 2_048  # objects and lists: a message is one, a list of text parts several, a tool about ten
MOST_STRINGS = 65_536  # names and texts
MOST_VALUES = 262_144  # separated by commas: token ids, above all

# More than one of these takes over a millisecond to read.
LARGE_BYTES = 256 * 1024
LARGE_CONTAINERS = 64
LARGE_VALUES = 8_192


class BodyShape:
    """Counts the values of a JSON body while its pieces arrive, so that no body is looked at in one go.

    Whether it is JSON is the parser's part.
    """

    def __init__(self) -> None:
        self._is_in_string = False
        self._held = b""  # a backslash whose character is in the next piece
        self._bytes = self._containers = self._strings = self._commas = 0

    @property
    def is_large(self) -> bool:
        """Whether reading what has come so far takes milliseconds."""
        return self._bytes > LARGE_BYTES or self._containers > LARGE_CONTAINERS or self._commas > LARGE_VALUES

    def add(self, piece: bytes) -> None:
        """Count the next piece; ``ApiError`` 400 when the body holds more values than a request needs."""
        self._bytes += len(piece)
        piece = self._held + piece
        if b"\0" in piece:  # UTF-16 or UTF-32, in which quotes cannot be told by their bytes
            raise invalid_request("The body is not JSON in UTF-8: it holds a NUL.", code="invalid_json")
        if b"\\" in piece:
            piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        self._held = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.split(b'"')
        outside, quotes = b"".join(parts[self._is_in_string :: 2]), len(parts) - 1
        self._containers += outside.count(b"[") + outside.count(b"{")
        self._strings += (quotes + (not self._is_in_string)) // 2
        self._commas += outside.count(b",")
        self._is_in_string ^= quotes % 2 == 1
        self._check()

    def _check(self) -> None:
        if self._containers > MOST_CONTAINERS:
            raise too_many_values("objects and lists", MOST_CONTAINERS)
        if self._strings > MOST_STRINGS:
            raise too_many_values("strings", MOST_STRINGS)
        if self._commas > MOST_VALUES:
            raise too_many_values("values", MOST_VALUES)
