"""A trace file: when requests came and how long they were."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TraceEntry:
    seconds: float  # since the first
    prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a published format, and how many seconds its unit of time has; None: a date."""

    time: str
    prompt: str
    answer: str
    unit_seconds: float | None = 1.0


FORMATS = {
    "own": Columns("seconds", "prompt_tokens", "max_tokens"),
    "Mooncake": Columns("timestamp", "input_length", "output_length", 0.001),
    "BurstGPT": Columns("Timestamp", "Request tokens", "Response tokens"),
    "Azure": Columns("TIMESTAMP", "ContextTokens", "GeneratedTokens", None),
}


def read_trace(path: Path, *, speed: float = 1.0) -> list[TraceEntry]:
    """The entries of a CSV or JSONL file in the order of their times, ``speed`` times as fast; ``ValueError``
    names the line that is wrong."""
    rows = _json_lines(path) if path.suffix in (".jsonl", ".json") else _csv_lines(path)
    found = []
    for line, row in rows:
        columns = next((c for c in FORMATS.values() if {c.time, c.prompt, c.answer} <= row.keys()), None)
        if columns is None:
            names = "; ".join(f"{c.time}, {c.prompt}, {c.answer}" for c in FORMATS.values())
            raise ValueError(f"{path}:{line}: has none of these sets of columns: {names}")
        try:
            entry = TraceEntry(
                _seconds(row[columns.time], columns.unit_seconds),
                max(int(row[columns.prompt]), 1),
                max(int(row[columns.answer]), 1),
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}:{line}: {error}") from error
        found.append(entry)
    if not found:
        raise ValueError(f"{path}: holds no requests")
    found.sort(key=lambda entry: entry.seconds)
    began = found[0].seconds
    return [TraceEntry((e.seconds - began) / speed, e.prompt_tokens, e.max_tokens) for e in found]


def _seconds(value: Any, unit_seconds: float | None) -> float:
    if unit_seconds is not None:
        return float(value) * unit_seconds
    moment = datetime.fromisoformat(str(value))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _csv_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open() as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: not a JSON object")
            yield number, row
