"""A real server that ends without being told to says why in the termination log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from dllm_server.cause import Cause, Explanation
from dllm_server.termination import Termination, TerminationReason
from scripted_engine import FIXTURE

FAULTY_ENGINE = Path(__file__).resolve().parents[1] / "faulty_engine.py"
WITH_ANOTHER_ENGINE = """
import sys
from functools import partial

from dllm_server.api.server import run_server
from dllm_server.engine.process.worker import start_engine
from dllm_server.settings import ServeSettings

sys.exit(run_server(ServeSettings.load({}, None), start=partial(start_engine, program=sys.argv[1:])))
"""
SERVE = ("-m", "dllm_server.cli", "serve")


def launch(log: Path, *program: str, **settings: str) -> subprocess.Popen[str]:
    """Python with settings in the environment, as in a pod."""
    given = {"model": str(FIXTURE), "host": "127.0.0.1", "port": "0", "device": "cpu"} | settings
    environment = {f"DLLM_{name.upper()}": value for name, value in given.items()}
    return subprocess.Popen(
        [sys.executable, *program],
        env=os.environ | environment | {"DLLM_TERMINATION_LOG": str(log)},
        stderr=subprocess.PIPE,
        text=True,
    )


def end_of(process: subprocess.Popen[str], log: Path) -> Termination:
    """What the log says; the process must have ended with the same code."""
    process.communicate(timeout=120)
    end = Termination.parse(log.read_text())
    assert end is not None, log.read_text()
    assert process.returncode == end.exit_code
    return end


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if '"listening"' in line:
            url: str = json.loads(line)["url"]
            return url
    raise AssertionError("the server ended before it listened")


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    log, model = tmp_path / "log", tmp_path / "absent"

    end = end_of(launch(log, *SERVE, model=str(model)), log)

    assert (end.reason, end.exit_code) == (TerminationReason.START_FAILED, 1)
    assert end.why == Explanation(Cause.NO_MODEL)
    assert str(model) not in log.read_text()


SECRET = "hunter2"
REFUSING = (
    "max_num_seqs",
    "max_queued_requests",
    "request_timeout_seconds",
    "max_body_bytes",
    "gpu_memory_limit",
    "log_level",
    "unknown_parameters",
    "unmasking_strategy",
    "refresh_share",
)


@pytest.mark.parametrize("setting", REFUSING)
def test_a_setting_of_a_wrong_value_is_named_with_its_rule_and_without_the_value(
    setting: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = launch(log, *SERVE, **{setting: SECRET})

    _, said = process.communicate(timeout=120)
    end = Termination.parse(log.read_text())

    assert end is not None
    assert (end.reason, end.exit_code) == (TerminationReason.START_FAILED, 2)
    assert end.why == Explanation(Cause.SETTING, setting=setting)
    assert f"--{setting.replace('_', '-')}: " in said
    assert SECRET not in said + log.read_text()


def test_settings_that_do_not_fit_the_device(tmp_path: Path) -> None:
    log = tmp_path / "log"

    end = end_of(launch(log, *SERVE, gpu_memory_limit="300MiB"), log)

    assert (end.reason, end.exit_code) == (TerminationReason.BUDGET_EXCEEDED, 1)
    assert end.why.cause is Cause.LOGITS_TOO_LARGE


def test_a_device_that_refuses_the_weights(tmp_path: Path) -> None:
    log = tmp_path / "log"

    end = end_of(launch(log, "-c", WITH_ANOTHER_ENGINE, str(FAULTY_ENGINE), "start"), log)

    why = Explanation(Cause.DEVICE_MEMORY_AT_START)
    assert end == Termination(TerminationReason.DEVICE_OUT_OF_MEMORY, why, 86)
    assert "injected" not in log.read_text()


def test_a_device_that_runs_out_of_memory_where_nothing_contains_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = launch(log, "-c", WITH_ANOTHER_ENGINE, str(FAULTY_ENGINE), "submit")

    answer = httpx.post(f"{url_of(process)}/v1/completions", json={"prompt": [1, 2]}, timeout=300)
    end = end_of(process, log)

    assert answer.status_code == 503
    assert (end.reason, end.exit_code) == (TerminationReason.DEVICE_OUT_OF_MEMORY, 86)


def test_an_engine_that_crashes_while_starting(tmp_path: Path) -> None:
    log = tmp_path / "log"

    end = end_of(launch(log, "-c", WITH_ANOTHER_ENGINE, "-c", "import os; os.kill(os.getpid(), 9)"), log)

    why = Explanation(Cause.ENGINE_SIGNAL_AT_START, {"signal": 9})
    assert end == Termination(TerminationReason.ENGINE_DIED, why, 137)
