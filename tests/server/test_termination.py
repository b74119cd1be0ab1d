"""The line a server leaves behind, and what is read from it."""

from __future__ import annotations

import json
import signal
import string
from pathlib import Path
from typing import Any

import pytest
from dllm_server.cause import MOST_NUMBER, SENTENCES, Cause, Explanation
from dllm_server.settings import ServeSettings, rule_of
from dllm_server.termination import (
    DEFAULT_LOG,
    DEVICE_OUT_OF_MEMORY_EXIT_CODE,
    START_FAILED_EXIT_CODE,
    Termination,
    TerminationReason,
    termination_log,
)
from hypothesis import given
from hypothesis import strategies as some

MOST_BYTES = 4096  # what Kubernetes keeps of a termination log
SECRET = "hunter2"


def places(cause: Cause) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(SENTENCES[cause]) if name}


@some.composite
def explanations(draw: Any) -> Explanation:
    """Any that a server can give."""
    cause = draw(some.sampled_from(Cause))
    names = sorted(places(cause) - {"setting", "rule"})
    numbers = {name: draw(some.integers(0, MOST_NUMBER)) for name in names}
    setting = draw(some.sampled_from(sorted(ServeSettings.model_fields))) if cause is Cause.SETTING else None
    return Explanation(cause, numbers, setting)


@given(reason=some.sampled_from(TerminationReason), why=explanations(), exit_code=some.integers(0, 255))
def test_any_end_fits_on_one_line_that_can_be_read_back(
    reason: TerminationReason, why: Explanation, exit_code: int
) -> None:
    end = Termination(reason, why, exit_code)
    line = end.to_json()

    assert len(line.encode()) <= MOST_BYTES
    assert len(line.splitlines()) == 1
    assert Termination.parse(f"{line}\n") == end
    assert json.loads(line)["message"] == end.message


def test_every_cause_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Cause)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):",
        "[]",
        "{}",
        '{"reason": "Bored", "message": "", "exit_code": 1}',
        '{"reason": "StartFailed", "message": "cut of',
        '{"reason": "StartFailed", "exit_code": 1000000}',
    ],
)
def test_what_no_server_wrote_is_no_termination(text: str) -> None:
    assert Termination.parse(text) is None


@pytest.mark.parametrize(
    "said",
    [
        {"message": SECRET},
        {"cause": SECRET},
        {"cause": "Start", "numbers": {SECRET: 1}},
        {"cause": "Setting", "setting": SECRET, "numbers": {}},
        {"cause": "Setting", "numbers": {}},
        {"cause": "Start", "setting": "port", "numbers": {}},
        {"cause": "ModelLen", "numbers": {"max_model_len": SECRET, "longest": 1}},
        {"cause": "ModelLen", "numbers": {"max_model_len": 1}},
        {"cause": "ModelLen", "numbers": {"max_model_len": 10**300, "longest": 1}},
        {"cause": "ModelLen", "numbers": {"max_model_len": -1, "longest": True}},
        {"cause": ["Start"], "numbers": [SECRET], "setting": {SECRET: SECRET}},
        {SECRET: SECRET},
    ],
)
def test_nothing_but_a_known_sentence_is_read_of_what_a_container_wrote(said: dict[str, Any]) -> None:
    end = Termination.parse(json.dumps({"reason": "StartFailed", "exit_code": 1} | said))

    assert end is not None
    assert end.why == Explanation(Cause.START)
    assert SECRET not in end.message


@given(name=some.sampled_from(sorted(ServeSettings.model_fields)))
def test_every_setting_has_a_rule_in_words(name: str) -> None:
    assert name in str(Explanation(Cause.SETTING, setting=name))
    assert rule_of(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("max_num_seqs", "a whole number from 1 up to 4096"),
        ("max_queued_requests", "a whole number from 1"),
        ("refresh_share", "a number above 0 up to 1"),
        ("kv_pool_bytes", "a size in bytes such as 4GiB"),
        ("unknown_parameters", "one of refuse, warn"),
        ("refresh_interval", "a whole number from 1"),
    ],
)
def test_a_rule_says_what_a_setting_takes(name: str, rule: str) -> None:
    assert rule_of(name) == rule


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (TerminationReason.START_FAILED, START_FAILED_EXIT_CODE),
        (TerminationReason.BUDGET_EXCEEDED, START_FAILED_EXIT_CODE),
        (TerminationReason.DEVICE_OUT_OF_MEMORY, DEVICE_OUT_OF_MEMORY_EXIT_CODE),
    ],
)
def test_a_failed_start_has_a_code_by_reason(reason: TerminationReason, code: int) -> None:
    assert Termination.of_start(reason, Explanation(Cause.START)).exit_code == code


@pytest.mark.parametrize(
    ("returncode", "reason", "code"),
    [
        (-signal.SIGKILL, TerminationReason.ENGINE_DIED, 137),
        (3, TerminationReason.ENGINE_DIED, 3),
        (0, TerminationReason.ENGINE_DIED, 1),
        (DEVICE_OUT_OF_MEMORY_EXIT_CODE, TerminationReason.DEVICE_OUT_OF_MEMORY, 86),
    ],
)
def test_an_engine_that_ended_has_a_code_by_its_own(
    returncode: int, reason: TerminationReason, code: int
) -> None:
    end = Termination.of_engine(returncode)

    assert (end.reason, end.exit_code) == (reason, code)


def test_the_environment_names_the_log() -> None:
    assert termination_log({"DLLM_TERMINATION_LOG": "/elsewhere/log"}) == Path("/elsewhere/log")
    assert termination_log({}) == (DEFAULT_LOG if DEFAULT_LOG.exists() else None)


def test_a_log_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    Termination.of_engine(1).write(tmp_path / "absent" / "log")
    Termination.of_engine(1).write(None)

    assert list(tmp_path.iterdir()) == []
