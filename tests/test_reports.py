"""The table of public reports: every row has a verdict, and the test that it names exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = ("held", "fixed", "cannot happen")
COLUMNS = ["report", "what happened there", "here", "test"]
_TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+))?`")
_NUMBER = re.compile(r"\d+\b")


@dataclass(frozen=True)
class Row:
    """One line of the table; ``number`` is what the report is known by here."""

    number: int
    report: str
    happened: str
    here: str
    test: str

    @property
    def verdict(self) -> str | None:
        return next((verdict for verdict in VERDICTS if self.here.startswith(verdict)), None)


def read_rows() -> list[Row]:
    lines = (ROOT / "tests/reports.md").read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in lines
        if line.startswith("|")
    ]
    body = [line for line in cells if line != COLUMNS and not set("".join(line)) <= set("-| ")]
    for line in body:
        assert len(line) == len(COLUMNS), f"{line}: a row is | {' | '.join(COLUMNS)} |"
        assert _NUMBER.match(line[0]), f"{line[0]}: a row begins with the report's number"
    return [Row(int(_NUMBER.match(line[0])[0]), *line) for line in body]  # type: ignore[index]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


ROWS = read_rows()


def test_a_report_has_one_row() -> None:
    assert [number for number, rows in Counter(row.number for row in ROWS).items() if rows > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row.number))
def test_a_row_has_a_verdict_and_a_test_that_exists(row: Row) -> None:
    named = list(_TEST.finditer(row.test))

    assert row.verdict is not None, f"{row.report}: begin with {', '.join(VERDICTS)}"
    assert named or row.verdict == "cannot happen", (
        f"{row.report}: name the test, or say why it cannot happen"
    )
    assert len(row.here) > len("cannot happen: ") or row.verdict != "cannot happen", "say why"
    for test in named:
        path = ROOT / test["path"]
        assert path.is_file(), f"{row.report}: {path} does not exist"
        if test["name"]:
            assert test["name"] in functions_of(path), f"{row.report}: {test[0]} does not exist"
