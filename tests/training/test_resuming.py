"""A run in parts is the run in one, and what it leaves is a model that the server serves."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from dllm_server.evaluation.tasks import Family, make_items
from dllm_server.evaluation.wording import Wording
from dllm_server.evaluation.words import save_words, words_from_reasoning_gym
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.tokenizer import tokenizer_of

from training import train as training
from training.export import load_model, weights_of
from training.model import ModelShape
from training.prepare import QUESTIONS, WORDS
from training.tokenizer import build_tokenizer
from training.train import CHECKPOINT, Recipe, train

SHAPE = ModelShape(d_model=64, n_heads=1, n_layers=2, mlp_hidden_size=96)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` writes, of one question of a family."""
    folder = tmp_path_factory.mktemp("data")
    save_words(words_from_reasoning_gym(), folder / WORDS)
    items = make_items(Family.TOOL_CALLS, 1, wording=Wording.HELD_OUT)
    names = ("family", "question", "answer", "max_tokens", "tools")
    lines = [
        json.dumps({"wording": Wording.HELD_OUT} | {name: getattr(item, name) for name in names})
        for item in items
    ]
    (folder / QUESTIONS).write_text("\n".join(lines), encoding="utf-8")
    return folder


def run(
    data: Path, out: Path, *, seconds: float | None = None, seed: int = 1, weights: Path | None = None
) -> None:
    options = argparse.Namespace(
        data=data, out=out, steps=2, seconds=seconds, workers=0, device="cpu", compile=False, questions=1,
        weights=weights,
    )  # fmt: skip
    train(options, Recipe(seed, sequences=12, micro_tokens=4096, learning_rate=4e-3, early_until=0.5), SHAPE)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(data, out)
    return out


def test_a_run_in_parts_gives_the_same_weights_and_losses(
    data: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "LOG_EVERY", 2)

    for _ in range(2):
        run(data, tmp_path, seconds=0)
        assert not (tmp_path / "model").exists()
    run(data, tmp_path, seconds=0)

    shards = [path.name for path in (whole / "model").glob("*.safetensors")]
    assert shards
    for name in shards:
        assert (tmp_path / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    printed = capsys.readouterr().out
    assert "stopped at step 1 of 2" in printed
    assert "stopped before the scores" in printed
    (line,) = (tmp_path / "losses.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2
    assert len(json.loads(line)["families"]) > 4


def test_a_folder_of_another_recipe_is_refused(data: Path, whole: Path) -> None:
    with pytest.raises(ValueError, match="another recipe"):
        run(data, whole, seed=2)


def test_a_run_begins_from_the_weights_that_it_is_given(data: Path, whole: Path, tmp_path: Path) -> None:
    run(data, tmp_path, seconds=0, weights=whole / "model")

    begun = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    given = weights_of(whole / "model", build_tokenizer())
    apart = max(float((begun[name] - weight.float()).abs().max()) for name, weight in given.items())
    assert 0 < apart < 0.01


def test_what_a_run_exports_is_loaded_and_evaluated(whole: Path) -> None:
    checkpoint = open_checkpoint(whole / "model")
    scores = [json.loads(line) for line in (whole / "scores.jsonl").read_text().splitlines()]

    assert tokenizer_of(checkpoint.directory, checkpoint.config).template.shows_tools
    assert load_model(whole / "model", build_tokenizer()).shape == SHAPE
    assert {(score["family"], score["wording"], score["questions"]) for score in scores} == {
        ("tool_calls", "held-out", 1)
    }
