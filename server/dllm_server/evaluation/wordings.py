"""The wordings of ``wordings.toml``. No dependency but the standard library."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dllm_server.evaluation.wording import Wordings

_FILE = Path(__file__).with_suffix(".toml")
_NAME = re.compile(r"<(\w+)>")


@cache
def wordings_of(family: str) -> Wordings:
    """By the family's name in the file; ``KeyError`` where it has none."""
    return _read()[family]


@cache
def _read() -> Mapping[str, Wordings]:
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    named = tables.pop("alternatives")
    return {family: _wordings(table, named) for family, table in tables.items()}


def _wordings(table: dict[str, Any], named: Mapping[str, str]) -> Wordings:
    of_all = table.pop("trained", [])
    trained, held_out = {}, {}
    for variant, own in table.items():
        texts = {**named, **{name: text for name, text in own.items() if isinstance(text, str)}}
        trained[variant] = _without_names([*of_all, *own.get("trained", [])], texts)
        held_out[variant] = tuple(own["held_out"])
    return Wordings(trained, held_out)


def _without_names(patterns: Sequence[str], texts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(_NAME.sub(lambda match: texts[match[1]], pattern) for pattern in patterns)
