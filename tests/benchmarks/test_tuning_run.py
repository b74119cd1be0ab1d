"""The controller drives a toy engine on a CPU: that all of the experiment runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dllm_operator.tuning.decision import Reason

from benchmarks.tuning.__main__ import looks_until_final, main


@pytest.mark.sampled(0.33, of="benchmarks on toy shapes")
def test_the_experiment_runs_and_records_every_look(tmp_path: Path) -> None:
    output = tmp_path / "tuning.json"

    assert main(["--tiny", "--output", str(output), "--commit", "test"]) == 0

    [part] = json.loads(output.read_text())["parts"].values()
    assert [row["tokens"] for row in part["fixed"]] == [64, 256]
    assert all(row["tokens_per_second"] > 0 for row in part["fixed"])
    assert [row["look"] for row in part["tuned"]] == [0, 1, 2, 3]
    assert {row["reason"] for row in part["tuned"]} <= {str(reason) for reason in Reason}
    assert part["tuned"][0]["budget"] == 96
    assert part["second"][0]["budget"] == part["learned_budget"]
    assert main(["--output", str(output), "--plot", str(tmp_path / "tuning.png")]) == 0
    assert (tmp_path / "tuning.png").stat().st_size > 10_000


@pytest.mark.parametrize(("budgets", "expected"), [([8, 8, 8], 0), ([8, 9, 9], 1), ([8, 9, 8], 2), ([8], 0)])
def test_how_many_looks_pass_before_the_settings_are_final(budgets: list[int], expected: int) -> None:
    rows = [{"budget": budget, "seqs": 4, "pool_bytes": 1024} for budget in budgets]
    assert looks_until_final(rows) == expected
