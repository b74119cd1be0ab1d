"""Numbers that manifests write with or without quotes: resource quantities and byte sizes."""

from __future__ import annotations

from typing import Annotated

from dllm_server.settings import LEAST_MEMORY_BYTES, MemorySize
from pydantic import AfterValidator, BeforeValidator, StringConstraints, TypeAdapter, WithJsonSchema

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
QUANTITY_PATTERN = rf"^{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_UNIT = r"([KkMmGgTt]([Ii][Bb]?|[Bb])|[Bb])"
MEMORY_SIZE_PATTERN = rf"^\s*([0-9]{{5,}}(\.[0-9]+)?|[0-9]+(\.[0-9]+)?\s*{_UNIT})\s*$"

_MEMORY_SIZE: TypeAdapter[int] = TypeAdapter(MemorySize)


def _integer_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_the_server_reads_it(text: str) -> str:
    _MEMORY_SIZE.validate_python(text)
    return text


def _int_or_string(pattern: str, minimum: int = 0) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": minimum,
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

MemorySizeText = Annotated[
    str,
    BeforeValidator(_integer_as_text),
    StringConstraints(max_length=32),
    AfterValidator(_as_the_server_reads_it),
    _int_or_string(MEMORY_SIZE_PATTERN, LEAST_MEMORY_BYTES),
]
