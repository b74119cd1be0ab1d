"""The JSON of a run: merged part by part, judged by targets, shown as a table, drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.gpu.figure import Figure, PartResult, Target
from benchmarks.gpu.record import entry, load, merge, save
from benchmarks.gpu.table import figures_table, target_text, verdicts

RUN = {"device": "a card", "scale": "full"}


def make_entry(*figures: Figure, error: str = "") -> dict[str, Any]:
    return entry(PartResult(list(figures), {"runs": [1]}), 2.0, RUN, error)


@pytest.mark.parametrize(
    ("value", "is_ceiling", "reached"),
    [(739.9, False, False), (740, False, True), (741, False, True), (740, True, True), (741, True, False)],
)
def test_a_target_is_a_floor_or_a_ceiling(value: float, is_ceiling: bool, reached: bool) -> None:
    figure = Figure("x", value, "tok/s", Target(2, 740, is_ceiling=is_ceiling))

    assert figure.record()["is_reached"] is reached


def test_what_is_not_a_number_reaches_no_target() -> None:
    assert not Target(2, 740).is_reached(float("nan"))
    assert not Target(2, 740, is_ceiling=True).is_reached(float("nan"))


def test_a_part_replaces_its_own_entry_and_leaves_the_others() -> None:
    record = merge(merge({}, "single", make_entry(Figure("a", 1, "s"))), "idle", make_entry())

    merged = merge(record, "single", make_entry(Figure("b", 2, "s")))

    assert list(merged["parts"]) == ["single", "idle"]
    assert [figure["name"] for figure in merged["parts"]["single"]["figures"]] == ["b"]
    assert merged["parts"]["idle"] == record["parts"]["idle"]


def test_a_failed_part_keeps_the_figures_it_had() -> None:
    failed = make_entry(Figure("a", 1, "s"), error="OutOfMemoryError: no")

    assert (failed["error"], len(failed["figures"])) == ("OutOfMemoryError: no", 1)


def test_a_saved_record_is_plain_json_that_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "gpu.json"
    record = merge({}, "single", make_entry(Figure("a", float("nan"), "s"), Figure("b", 1 / 3, "s")))

    save(path, record)

    values = [figure["value"] for figure in load(path)["parts"]["single"]["figures"]]
    assert values == [None, 0.333333]
    assert json.loads(path.read_text()) == load(path)
    assert list(path.parent.iterdir()) == [path]


def test_lists_of_numbers_take_a_line_and_strings_stay(tmp_path: Path) -> None:
    record = {
        "parts": {},
        "values": [[1.5, 2], [], [None, True]],
        "note": "[\n 1,\n  2\n]",
        "names": ["a", "[ b ]"],
    }

    save(tmp_path / "gpu.json", record)

    assert load(tmp_path / "gpu.json") == record
    assert "  [1.5, 2],\n" in (tmp_path / "gpu.json").read_text()


def test_a_missing_or_broken_file_is_an_empty_record(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")

    assert load(tmp_path / "none.json") == load(broken) == {"parts": {}}


def test_a_line_is_reached_when_all_its_figures_are() -> None:
    good, bad = Figure("a", 800, "tok/s", Target(2, 740)), Figure("b", 2.0, "times", Target(2, 2.7))
    other = Figure("c", 150, "tok/s", Target(3, 145))

    record = merge(merge({}, "offline", make_entry(good, bad)), "single", make_entry(other))

    assert verdicts(record) == {2: False, 3: True}


def test_the_table_shows_values_targets_verdicts_and_errors() -> None:
    record = merge({}, "offline", make_entry(Figure("speed", 800, "tok/s", Target(2, 740, 830))))
    record = merge(record, "idle", make_entry(Figure("idle", 0.2, "share"), error="ValueError: [oops]"))
    console = Console(file=io.StringIO(), width=140)

    console.print(figures_table(record))

    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for part in ("speed", "800 tok/s", ">= 740 (830)", "2 reached", "20.0%", "ValueError: [oops]", "failed"):
        assert part in shown


def test_a_ceilings_text_says_at_most() -> None:
    assert target_text(Figure("x", 1, "s", Target(8, 0.1, is_ceiling=True)).record()) == "<= 0.1"
