"""Sizes in bytes as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

LEAST_BYTES = 1000
LEAST_MEMORY_BYTES = 10**4

_BYTE_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _BYTE_UNITS[f"{_letter}IB"] = _BYTE_UNITS[f"{_letter}I"] = 1024**_power
    _BYTE_UNITS[f"{_letter}B"] = 1000**_power


def parse_bytes(value: object) -> object:
    """``"24GiB"`` -> 25769803776; numbers pass; ``ValueError`` names the accepted units."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value, re.ASCII)
    if match is None or match[2].upper() not in _BYTE_UNITS:
        raise ValueError("not a size in bytes: write a number and KiB, MiB, GiB, TiB (or KB, MB, GB, TB)")
    return int(float(match[1]) * _BYTE_UNITS[match[2].upper()])


def _is_a_size(size: int) -> int:
    return _at_least(size, LEAST_BYTES, "MiB")


def _is_a_memory_size(size: int) -> int:
    return _at_least(size, LEAST_MEMORY_BYTES, "GiB")


def _at_least(size: int, least: int, unit: str) -> int:
    """A smaller number was meant in another unit, and would fail much later as bytes."""
    if size < least:
        raise ValueError(f"less than {least} bytes: write a unit, such as 4{unit}")
    return size


ByteSize = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_is_a_size)]
MemorySize = Annotated[int, BeforeValidator(parse_bytes), AfterValidator(_is_a_memory_size)]
