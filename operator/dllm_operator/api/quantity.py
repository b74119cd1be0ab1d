"""Numbers that manifests write with or without quotes: resource quantities and byte sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints, WithJsonSchema

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
QUANTITY_PATTERN = rf"^{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
BYTE_SIZE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGgTt]([Ii][Bb]?|[Bb])|[Bb])?\s*$"


def _integer_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _int_or_string(pattern: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": pattern,
            "maxLength": 32,
        }
    )


Quantity = Annotated[
    str,
    BeforeValidator(_integer_as_text),
    StringConstraints(pattern=QUANTITY_PATTERN, max_length=32),
    _int_or_string(QUANTITY_PATTERN),
]

ByteSizeText = Annotated[
    str,
    BeforeValidator(_integer_as_text),
    StringConstraints(pattern=BYTE_SIZE_PATTERN, max_length=32),
    _int_or_string(BYTE_SIZE_PATTERN),
]
