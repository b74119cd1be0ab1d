"""Durations as people write them."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """``"500ms"`` -> 0.5, ``"2"`` -> 2.0; ``ValueError`` names the accepted units."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", text, re.ASCII)
    if match is None or match[2] not in _UNITS:
        raise ValueError("not a duration: write a number and ms, s, m or h, such as 500ms")
    return float(match[1]) * _UNITS[match[2]]


def _parse(value: object) -> object:
    return parse_seconds(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_parse)]


def in_words(seconds: float) -> str:
    """Three digits and a unit: ``12.3 ms``; a dash for NaN."""
    if math.isnan(seconds):
        return "-"
    return f"{1000 * seconds:.3g} ms" if abs(seconds) < 0.9995 else f"{seconds:,.2f} s"
