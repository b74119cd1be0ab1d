"""``dllm evaluate`` measures block-causal models by the ways in which they can commit."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from dllm_server.api.schemas.tools import Tool
from dllm_server.cli.commands import cli
from dllm_server.evaluation.modes import EXACT_MODES
from dllm_server.evaluation.report import Run, runs, wordings_table
from dllm_server.evaluation.score import Score
from dllm_server.evaluation.tasks import Family, make_items
from dllm_server.evaluation.wording import Wording
from dllm_server.models.source import EMBEDDED_DIRECTORY
from dllm_server.models.tokenizer import load_tokenizer
from rich.console import Console

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


def test_wordings_and_grammars_are_scored_under_the_first_mode() -> None:
    families = [Family.RECALL, Family.JSON_FIELDS]

    found = runs(EXACT_MODES[:2], families, [Wording.ORIGINAL, Wording.HELD_OUT])

    assert found == [
        Run(EXACT_MODES[0], Family.RECALL, Wording.ORIGINAL),
        Run(EXACT_MODES[0], Family.JSON_FIELDS, Wording.ORIGINAL),
        Run(EXACT_MODES[0], Family.JSON_FIELDS, Wording.ORIGINAL, has_grammar=True),
        Run(EXACT_MODES[0], Family.RECALL, Wording.HELD_OUT),
        Run(EXACT_MODES[0], Family.JSON_FIELDS, Wording.HELD_OUT),
        Run(EXACT_MODES[0], Family.JSON_FIELDS, Wording.HELD_OUT, has_grammar=True),
        Run(EXACT_MODES[1], Family.RECALL, Wording.ORIGINAL),
        Run(EXACT_MODES[1], Family.JSON_FIELDS, Wording.ORIGINAL),
    ]


def test_an_answer_held_to_its_grammar_is_valid_unless_it_is_cut(tmp_path: Path) -> None:
    found = tmp_path / "scores.json"
    asked = ["--items", "1", "--family", "json_fields", "--mode", "threshold-0.9", "--wording", "held-out"]

    result = CliRunner().invoke(
        cli, ["evaluate", *asked, "--device", "cpu", "--dtype", "float32", "--json", str(found)]
    )

    assert result.exit_code == 0, result.output
    rows = json.loads(found.read_text())
    assert [row["has_grammar"] for row in rows] == [False, True]
    assert rows[1]["valid"] + rows[1]["cut"] == 1
    assert "accuracy by wording, threshold-0.9" in result.output


def test_calls_are_left_out_where_a_template_shows_no_tools(tmp_path: Path) -> None:
    model = str(FIXTURES / "sdar")

    result = CliRunner().invoke(cli, ["evaluate", model, "--family", "tool_calls"])

    assert result.exit_code == 2
    assert "this model's chat template does not show tools" in result.output


def test_a_low_score_in_held_out_wordings_is_told() -> None:
    cells = {
        "mode": "m",
        "has_grammar": False,
        "items": 20,
        "valid": None,
        "cut": 1,
        "tokens": 9,
        "passes": 3,
    }
    scores = [
        Score(family, wording, correct=correct, seconds=1.0, answer_tokens=3, **cells)
        for family, correct in (("recall", 16), ("chain_sum", 17))
        for wording in ("trained", "held-out")
    ]

    shown = Console(width=150, file=StringIO(), record=True)
    shown.print(wordings_table(scores, "m"))

    lines = shown.export_text().splitlines()
    low, high = (next(line for line in lines if family in line) for family in ("recall", "chain_sum"))
    assert "80.0%" in low
    assert "below 85% in wordings it was not trained on" in low
    assert "below" not in high


def test_a_prompt_with_tools_is_the_one_that_the_api_makes() -> None:
    tokenizer, item = load_tokenizer(EMBEDDED_DIRECTORY), make_items(Family.TOOL_CALLS, 1)[0]
    messages = [{"role": "user", "content": item.question}]
    tools = [Tool.model_validate(tool).for_template() for tool in item.tools]

    assert tokenizer.encode_chat(messages, tools=item.tools) == tokenizer.encode_chat(messages, tools=tools)
