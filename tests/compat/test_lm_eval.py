"""lm-eval's own program on a small task file of ours: answers by text, a multiple choice by likelihood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import Served
from tests.compat.environment import MODEL_DIRECTORY, Clients
from tests.compat.lm_eval_tasks import CHOICE_TASK, GENERATE_TASK, write_tasks

pytestmark = [
    pytest.mark.compat,
    pytest.mark.slow,
    pytest.mark.sampled(0.18, of="what tools for loads and scores say"),
]

QUESTIONS = 16


def evaluate(clients: Clients, served: Served, folder: Path, kind: str, path: str, *tasks: str) -> Any:
    """The results of ``lm_eval run``, task by task."""
    write_tasks(folder, QUESTIONS)
    model = [f"model={served.model}", f"base_url={served.url}{path}", "num_concurrent=4"]
    if kind == "local-completions":
        model.append(f"tokenizer={MODEL_DIRECTORY}")
    output = folder / "output"
    arguments = ["--model", kind, "--model_args", ",".join(model), "--tasks", ",".join(tasks)]
    arguments += ["--include_path", str(folder), "--apply_chat_template", "--output_path", str(output)]
    clients.run("lm_eval", "run", *arguments, variables={"OPENAI_API_KEY": served.key})
    (results,) = output.rglob("results_*.json")
    return json.loads(results.read_text())["results"]


@pytest.fixture(scope="module")
def by_completions(clients: Clients, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("completions")
    tasks = [CHOICE_TASK, GENERATE_TASK]
    return evaluate(clients, served, folder, "local-completions", "/v1/completions", *tasks)


def test_local_completions_scores_the_texts_of_a_task(by_completions: Any) -> None:
    assert by_completions[GENERATE_TASK]["exact_match,none"] >= 0.9


def test_local_completions_finds_the_likeliest_choice(by_completions: Any) -> None:
    """Of four; each wrong one differs from the right one in one digit. The embedded model, which fills in
    answers and seldom has to weigh given ones, finds three quarters."""
    assert by_completions[CHOICE_TASK]["acc,none"] >= 0.6


def test_local_chat_completions_scores_the_texts_of_a_task(
    clients: Clients, served: Served, tmp_path: Path
) -> None:
    results = evaluate(
        clients, served, tmp_path, "local-chat-completions", "/v1/chat/completions", GENERATE_TASK
    )

    assert results[GENERATE_TASK]["exact_match,none"] >= 0.9
