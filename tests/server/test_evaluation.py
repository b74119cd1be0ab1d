"""``dllm evaluate`` measures block-causal models by the ways in which they can commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from dllm_server.cli.commands import cli
from dllm_server.evaluation.modes import EXACT_MODES

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
ASKED = ["--items", "2", "--family", "spell_backward", "--device", "cpu", "--dtype", "float32"]


@pytest.mark.parametrize("fixture", ["sdar", "llada21"])
def test_a_block_causal_model_is_scored_under_each_of_its_modes(fixture: str, tmp_path: Path) -> None:
    found = tmp_path / "scores.json"

    result = CliRunner().invoke(cli, ["evaluate", str(FIXTURES / fixture), *ASKED, "--json", str(found)])

    assert result.exit_code == 0, result.output
    rows = {row["mode"]: row for row in json.loads(found.read_text())}
    assert list(rows) == [mode.name for mode in EXACT_MODES]
    assert all(row["items"] == 2 and row["passes"] > 0 for row in rows.values())
    assert rows["quota-4"]["tokens_per_forward"] > rows["quota-1"]["tokens_per_forward"]


def test_the_modes_of_the_other_kind_are_unknown_to_it() -> None:
    asked = ["evaluate", str(FIXTURES / "sdar"), *ASKED, "--mode", "retention-0.5"]

    result = CliRunner().invoke(cli, asked)

    assert result.exit_code == 2
    assert "unknown mode retention-0.5: choose from default, quota-1" in result.output
