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
NUMBERS = {
    "Serving": (1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18, 19, 21, 22, 23, 24, 25, 27, 28),
    "Checkpoints": tuple(range(30, 37)),
    "Kubernetes": (*range(38, 48), 49, 50, 51, 52, 53, 54, 55, 56, 58, 59, 60, 62),
}
"""Of the reports that each section is about; there are gaps."""
COMPLETE = ("Serving", "Checkpoints", "Kubernetes")
_TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+))?`")
_NUMBER = re.compile(r"\d+\b")


@dataclass(frozen=True)
class Row:
    """One line of a table; ``number`` is what the report is known by here."""

    section: str
    number: int
    report: str
    happened: str
    here: str
    test: str

    @property
    def verdict(self) -> str | None:
        return next((verdict for verdict in VERDICTS if self.here.startswith(verdict)), None)


def read_rows() -> list[Row]:
    rows, section = [], ""
    for line in (ROOT / "tests/reports.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|") or cells == COLUMNS or set(line) <= set("-| "):
            continue
        assert len(cells) == len(COLUMNS), f"{line}: a row is | {' | '.join(COLUMNS)} |"
        number = _NUMBER.match(cells[0])
        assert number is not None, f"{cells[0]}: a row begins with the report's number"
        rows.append(Row(section, int(number[0]), *cells))
    return rows


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


ROWS = read_rows()


def test_a_report_has_one_row() -> None:
    assert [number for number, rows in Counter(row.number for row in ROWS).items() if rows > 1] == []


@pytest.mark.parametrize("section", NUMBERS)
def test_a_section_is_about_its_reports(section: str) -> None:
    found = {row.number for row in ROWS if row.section == section}

    assert found <= set(NUMBERS[section])
    assert found == set(NUMBERS[section]) or section not in COMPLETE


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
