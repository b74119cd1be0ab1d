"""The command line as a newcomer meets it: real processes, one clear line for every mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FIXTURE = Path(__file__).parents[2] / "fixtures" / "llada_mha"


def run_dllm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "dllm_server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--block-length", "0"], "--block-length"),
        (["serve", "--no-such-flag"], "--no-such-flag"),
        (["serve", "--device", "tpu"], "tpu"),
        (["serve", "--unmasking-strategy", "quota", "--unmasking-value", "0.5"], "whole number"),
        (["serve", "--gpu-memory-limit", "24Gigs"], "24Gigs"),
        (["plan", "--gpu-memory", "24"], "write a unit, such as 24GiB"),
        (["serve", "--config", "missing.yaml"], "missing.yaml"),
        (["serve", "no/such/model"], "no/such/model"),
        (["plan", "./nowhere"], "./nowhere"),
        (["plan", str(FIXTURE), "--gpu-memory", "900MiB"], "reserve"),
        (["plan", str(FIXTURE), "--max-model-len", "1024"], "max_model_len 1024 exceeds the model's 512"),
        (["generate", str(FIXTURE), "--prompt", "hi", "--max-tokens", "600"], "601 tokens"),
        (["evaluate", str(FIXTURE), "--family", "poetry"], "unknown family poetry"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(arguments: list[str], expected: str) -> None:
    result = run_dllm(*arguments)

    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert expected in result.stderr.splitlines()[-1]


def test_plan_prints_json_whose_owners_sum_to_at_most_the_device() -> None:
    result = run_dllm("plan", str(FIXTURE), "--gpu-memory", "24GiB", "--json")

    budget = json.loads(result.stdout)
    assert budget["device_bytes"] == 24 * 1024**3
    owners = ("weights", "activations", "logits", "reserve", "kv_pool", "free")
    assert sum(budget[f"{owner}_bytes"] for owner in owners) <= budget["usable_bytes"]


def test_flags_win_over_the_environment_and_it_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("max-num-seqs: 3\nblock_length: 8\nmax_model_len: 64\n")
    plan = ["plan", str(FIXTURE), "--gpu-memory", "24GiB", "--json", "--config", str(config)]

    from_file = json.loads(run_dllm(*plan).stdout)
    from_environment = json.loads(run_dllm(*plan, DLLM_MAX_NUM_SEQS="5").stdout)
    from_flags = json.loads(run_dllm(*plan, "--max-num-seqs", "7", DLLM_MAX_NUM_SEQS="5").stdout)

    assert [p["full_requests"] for p in (from_file, from_environment, from_flags)] == [3, 5, 7]


def test_generate_prints_the_answer_on_stdout_and_the_counts_on_stderr() -> None:
    result = run_dllm(
        "generate", str(FIXTURE), "--prompt", "t5 t6", "--max-tokens", "8", "--block-length", "8", "--raw"
    )

    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 8
    assert "forward passes" in result.stderr


def test_help_names_every_command() -> None:
    result = run_dllm("--help")

    assert all(command in result.stdout for command in ("serve", "generate", "plan", "evaluate"))
