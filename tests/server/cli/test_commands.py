"""The command line as a newcomer meets it: one clear line for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from dllm_server.cli.commands import cli

from tests.server.fake_hub import fake_hub

PROCESS = pytest.mark.sampled(0.4, of="commands in a process of their own")
pytestmark = pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)

FIXTURE = Path(__file__).parents[2] / "fixtures" / "llada_mha"


def run_dllm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllm_server.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--block-length", "0"], "--block-length"),
        (["serve", "--no-such-flag"], "--no-such-flag"),
        (["serve", "--device", "tpu"], "tpu"),
        (["serve", "--unmasking-strategy", "quota", "--unmasking-value", "0.5"], "whole number"),
        (["serve", "--gpu-memory-limit", "24Gigs"], "not a size in bytes: write a number and KiB"),
        (["plan", "--gpu-memory", "24"], "write a unit, such as 4GiB"),
        (["serve", "--config", "missing.yaml"], "missing.yaml"),
        (["plan", "./nowhere"], "./nowhere"),
        (["plan", str(FIXTURE), "--gpu-memory", "900MiB"], "reserve"),
        (["plan", str(FIXTURE), "--max-model-len", "1024"], "max_model_len 1024 exceeds the model's 512"),
        (["evaluate", str(FIXTURE), "--family", "poetry"], "unknown family poetry"),
        (["generate", "--prompt", "hi", "--grammar", "missing.lark"], "missing.lark"),
        (["generate", "--prompt", "hi", "--regex", "a", "--choice", "b"], "--regex and --choice cannot go"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(cli, arguments)

    assert isinstance(result.exception, SystemExit)
    assert result.exit_code != 0
    assert expected in result.stderr.splitlines()[-1]


@PROCESS
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "no/such/model"], "no/such/model"),
        (["generate", str(FIXTURE), "--prompt", "hi", "--max-tokens", "600"], "601 tokens"),
        (["generate", "--prompt", "hi", "--regex", "(a"], "unclosed group"),
    ],
)
def test_a_mistake_that_the_engine_finds_ends_a_process_in_one_line(
    arguments: list[str], expected: str
) -> None:
    result = run_dllm(*arguments)

    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert expected in result.stderr.splitlines()[-1]


@PROCESS
def test_plan_prints_json_whose_owners_sum_to_at_most_the_device() -> None:
    result = CliRunner().invoke(cli, ["plan", str(FIXTURE), "--gpu-memory", "24GiB", "--json"])

    budget = json.loads(result.stdout)
    assert budget["device_bytes"] == 24 * 1024**3
    owners = ("weights", "activations", "logits", "reserve", "kv_pool", "free")
    assert sum(budget[f"{owner}_bytes"] for owner in owners) <= budget["usable_bytes"]


@PROCESS
def test_flags_win_over_the_environment_and_it_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("max-num-seqs: 3\nblock_length: 8\nmax_model_len: 64\n")
    plan = ["plan", str(FIXTURE), "--gpu-memory", "24GiB", "--json", "--config", str(config)]

    def full_requests(*flags: str, **environment: str) -> int:
        result = CliRunner().invoke(cli, [*plan, *flags], env=environment)
        return int(json.loads(result.stdout)["full_requests"])

    from_file = full_requests()
    from_environment = full_requests(DLLM_MAX_NUM_SEQS="5")
    from_flags = full_requests("--max-num-seqs", "7", DLLM_MAX_NUM_SEQS="5")

    assert (from_file, from_environment, from_flags) == (3, 5, 7)


@PROCESS
def test_generate_prints_the_answer_on_stdout_and_the_counts_on_stderr() -> None:
    result = run_dllm(
        "generate", str(FIXTURE), "--prompt", "t5 t6", "--max-tokens", "8", "--block-length", "8", "--raw"
    )

    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 8
    assert "forward passes" in result.stderr


@PROCESS
@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--json-schema", "schema.json"), r"\[(1|2)\]\n"),
        (("--regex", "[ab]{3}"), r"[ab]{3}\n"),
        (("--choice", "yes", "--choice", "no"), r"(yes|no)\n"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_generate_holds_the_answer_to_what_its_options_say(
    options: tuple[str, ...], pattern: str, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 1}')
    given = [str(schema) if option == schema.name else option for option in options]

    result = run_dllm("generate", "--prompt", "hi", *given)

    assert re.fullmatch(pattern, result.stdout), result


@PROCESS
def test_a_plan_that_fails_prints_no_half_of_its_json(tmp_path: Path) -> None:
    missing = run_dllm("plan", "owner/name", "--json", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    too_large = CliRunner().invoke(cli, ["plan", str(FIXTURE), "--gpu-memory", "900MiB", "--json"])

    assert (missing.stdout, missing.returncode) == ("", 2)
    assert "HF_HUB_OFFLINE is set while the cache" in missing.stderr.splitlines()[-1]
    assert (too_large.stdout, too_large.exit_code) == ("", 2)


@PROCESS
def test_a_plan_for_a_hub_id_fetches_no_weights(tmp_path: Path) -> None:
    with fake_hub({"owner/name": FIXTURE}) as hub:
        result = run_dllm(
            "plan",
            "owner/name",
            "--gpu-memory",
            "24GiB",
            "--json",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path),
        )

    assert json.loads(result.stdout)["model"] == "owner/name"
    assert list(tmp_path.rglob("config.json"))
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--max-num-seq", "8"], "--max-num-seqs"),
        (["plan", "--gpu-memry", "24GiB"], "--gpu-memory"),
        (["serv"], "serv"),
    ],
)
def test_a_misspelt_flag_is_answered_with_the_one_that_was_meant(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(cli, arguments)

    assert result.exit_code == 2
    assert expected in result.output.splitlines()[-1]


def test_without_a_command_the_commands_are_shown() -> None:
    result = CliRunner().invoke(cli, [])

    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_the_version_is_that_of_the_distribution() -> None:
    result = CliRunner().invoke(cli, ["--version"])

    assert result.output == f"dllm, version {version('dllm-serve')}\n"


@PROCESS
@pytest.mark.parametrize(
    "arguments",
    [["serve", str(FIXTURE), "--port", "0"], ["generate", str(FIXTURE), "--prompt", "hi", "--raw"]],
    ids=["serve", "generate"],
)
def test_ctrl_c_while_starting_ends_without_a_traceback(arguments: list[str]) -> None:
    """To the whole group, as a terminal sends it, once PyTorch is being loaded (by the engine for serve)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dllm_server.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family = psutil.Process(process.pid)
    wait_until(lambda: any(loads_torch(each) for each in [family, *family.children()]))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)

    assert "Traceback" not in errors
    assert process.returncode in (0, 1)


def loads_torch(process: psutil.Process) -> bool:
    return any("libtorch" in mapped.path for mapped in process.memory_maps())


def wait_until(is_true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_help_names_every_command() -> None:
    result = run_dllm("--help")

    assert all(command in result.stdout for command in ("serve", "generate", "plan", "evaluate"))
