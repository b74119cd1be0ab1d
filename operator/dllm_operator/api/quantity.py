"""Numbers that manifests write with or without quotes: resource quantities and byte sizes."""

from __future__ import annotations

from typing import Annotated

from dllm_server.settings import LEAST_MEMORY_BYTES, MemorySize
from pydantic import AfterValidator, BeforeValidator, StringConstraints, TypeAdapter, WithJsonSchema

_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
QUANTITY_PATTERN = rf"^{_NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{{1,2}})?$"
"""With two digits of an exponent at most: an API server that compares 1e999999999 with another number, as it
does to validate a pod, writes its zeros out, for minutes."""
_MORE_ZEROS = "[eE][+-]?[0-9]{3}"
_UNIT = r"([KkMmGgTt]([Ii][Bb]?|[Bb])|[Bb])"
MEMORY_SIZE_PATTERN = rf"^\s*([0-9]{{5,}}(\.[0-9]+)?|[0-9]+(\.[0-9]+)?\s*{_UNIT})\s*$"

_MEMORY_SIZE: TypeAdapter[int] = TypeAdapter(MemorySize)


def has_more_zeros(*values: str) -> str:
    """CEL, to ask before ``quantity()``: rules are also evaluated of values that their pattern refuses."""
    return " || ".join(f"string({value}).matches('{_MORE_ZEROS}')" for value in values)


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
