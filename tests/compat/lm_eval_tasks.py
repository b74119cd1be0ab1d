"""A task file of our own for lm-eval: held-out questions that the embedded model can answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml
from dllm_server.evaluation.tasks import Family, make_items

CHOICE_TASK, GENERATE_TASK = "dllm_sum_choice", "dllm_spell_backward"
CHOICES = 4


def write_tasks(folder: Path, questions: int) -> None:
    """Write both tasks and their questions, for ``--include_path``."""
    _write(folder, CHOICE_TASK, _sums(questions), _CHOICE)
    _write(folder, GENERATE_TASK, _words(questions), _GENERATE)


_CHOICE: dict[str, Any] = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{right}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}

_GENERATE: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": "",
    "generation_kwargs": {"until": ["\n", "Q:", "</s>", "<|im_end|>", "Question:"], "max_gen_toks": 32},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def _sums(questions: int) -> list[dict[str, Any]]:
    """Sums with three wrong answers that differ from the right one in one digit."""
    rng = random.Random(0)
    rows = []
    for item in make_items(Family.CHAIN_SUM, questions):
        wrong = {_with_another_digit(item.answer, rng) for _ in range(20)} - {item.answer}
        choices = [item.answer, *sorted(wrong)[: CHOICES - 1]]
        rng.shuffle(choices)
        rows.append({"question": item.question, "choices": choices, "right": choices.index(item.answer)})
    return rows


def _words(questions: int) -> list[dict[str, Any]]:
    items = make_items(Family.SPELL_BACKWARD, questions)
    return [{"question": item.question, "answer": item.answer} for item in items]


def _with_another_digit(number: str, rng: random.Random) -> str:
    places = [place for place, figure in enumerate(number) if figure.isdigit()]
    place = rng.choice(places)
    return number[:place] + rng.choice("123456789".replace(number[place], "")) + number[place + 1 :]


def _write(folder: Path, task: str, rows: list[dict[str, Any]], how: dict[str, Any]) -> None:
    data = folder / f"{task}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "task": task,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "metadata": {"version": 1},
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(source | how))
