"""A model is served no longer than it was trained, unless a setting says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import EOS, MASK, Size, make_config
from click.testing import CliRunner
from dllm_server.cli.commands import cli
from dllm_server.engine.process.startup import context_warning, engine_limits
from dllm_server.memory import BudgetError
from dllm_server.models.registry import find_family
from dllm_server.settings import LoadFormat
from engines import make_settings, start_engine_in_process

pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)

DREAM = make_config(Size(family="dream", max_model_len=131_072))


def serve_length(config: dict[str, object], **settings: int) -> tuple[int, str | None]:
    """The longest request, and what is said about it."""
    shape = find_family(config)[1].shape("model", 2)
    limits = engine_limits(make_settings(Path("model"), **settings), shape.longest_trained)
    return limits.max_model_len, context_warning(shape, limits)


def test_dream_serves_the_2048_tokens_it_was_trained_on_and_says_how_to_raise_it() -> None:
    length, warning = serve_length(DREAM, max_num_batched_tokens=4096)

    assert length == 2048
    assert warning == (
        "config.json promises 131072 tokens, but this model was trained on 2048: 2048 are served; "
        "--max-model-len raises it"
    )


def test_a_longer_context_is_served_on_demand_with_a_warning() -> None:
    length, warning = serve_length(DREAM, max_num_batched_tokens=8192, max_model_len=8192)

    assert length == 8192
    assert warning == (
        "max_model_len 8192 exceeds the 2048 tokens that this model was trained on: "
        "answers get worse past them"
    )


@pytest.mark.parametrize(
    "config", [make_config(Size()), make_config(Size(family="dream", max_model_len=1024))]
)
def test_a_model_that_promises_no_more_than_it_was_trained_on_is_served_whole(
    config: dict[str, object],
) -> None:
    length, warning = serve_length(config, max_num_batched_tokens=4096)

    assert length in (128, 1024)
    assert warning is None


def test_an_engine_of_dreams_shape_starts_at_2048_tokens_and_at_more_on_demand(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DREAM))
    changes = {"load_format": LoadFormat.DUMMY, "max_num_seqs": 1}

    default = start_engine_in_process(tmp_path, max_num_batched_tokens=4096, **changes)
    raised = start_engine_in_process(tmp_path, max_num_batched_tokens=4096, max_model_len=3000, **changes)

    assert default.model.max_model_len == 2048
    assert raised.model.max_model_len == 3000
    with pytest.raises(BudgetError, match="exceeds the model's 131072"):
        start_engine_in_process(tmp_path, max_num_batched_tokens=4096, max_model_len=200_000, **changes)


def test_plan_shows_the_served_length_and_the_trained_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DREAM))
    command = ["plan", str(tmp_path), "--gpu-memory", "24GiB"]

    table = CliRunner().invoke(cli, command)
    planned = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)

    assert "Warning: config.json promises 131072 tokens" in table.stderr
    assert (planned["max_model_len"], planned["trained_len"]) == (2048, 2048)


def test_plan_refuses_a_checkpoint_that_serve_would_refuse(tmp_path: Path) -> None:
    values = make_config(Size()) | {"mask_token_id": None, "eos_token_id": EOS}
    (tmp_path / "config.json").write_text(json.dumps(values))

    refused = CliRunner().invoke(cli, ["plan", str(tmp_path)])

    assert refused.exit_code == 2
    assert "mask_token_id is missing" in refused.stderr
    (tmp_path / "config.json").write_text(json.dumps(values | {"mask_token_id": MASK}))
    assert CliRunner().invoke(cli, ["plan", str(tmp_path)]).exit_code == 0
