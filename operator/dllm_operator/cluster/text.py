"""Text of containers, specs and other programs, on its way into status and Events. Pure."""

from __future__ import annotations

import re
from typing import TypeVar

Document = TypeVar("Document")

_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)", re.DOTALL)
_UNREADABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u202a-\u202e\u2066-\u2069"  # what turns the direction of the text after it
    "\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)


def readable(text: str) -> str:
    """Without what moves a terminal's cursor, and with U+FFFD for every character that is none."""
    return _UNREADABLE.sub("\ufffd", _TERMINAL.sub("", text))


def readable_document(document: Document) -> Document:
    """The same with every text of it readable, the names of fields as they are."""
    if isinstance(document, str):
        return readable(document)  # type: ignore[return-value]
    if isinstance(document, dict):
        return {name: readable_document(value) for name, value in document.items()}  # type: ignore[return-value]
    if isinstance(document, list | tuple):
        return [readable_document(item) for item in document]  # type: ignore[return-value]
    return document
