"""The line a server leaves behind, and what is read from it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from dllm_server.termination import (
    DEFAULT_LOG,
    DEVICE_OUT_OF_MEMORY_EXIT_CODE,
    MAX_MESSAGE_CHARACTERS,
    START_FAILED_EXIT_CODE,
    Termination,
    TerminationReason,
    termination_log,
)
from hypothesis import given
from hypothesis import strategies as some

MOST_BYTES = 4096  # what Kubernetes keeps of a termination log


@given(
    reason=some.sampled_from(TerminationReason),
    message=some.text() | some.text(max_size=3).map(lambda text: text * 1000),
    exit_code=some.integers(0, 255),
)
def test_any_message_fits_on_one_line_that_can_be_read_back(
    reason: TerminationReason, message: str, exit_code: int
) -> None:
    line = Termination(reason, message, exit_code).to_json()

    assert len(line.encode()) <= MOST_BYTES
    assert len(line.splitlines()) == 1
    read = Termination.parse(line)
    assert read is not None
    assert (read.reason, read.exit_code) == (reason, exit_code)
    assert len(read.message) <= MAX_MESSAGE_CHARACTERS


def test_a_plain_message_is_kept_as_it_is() -> None:
    end = Termination(TerminationReason.START_FAILED, 'model "ü" is not there', 1)

    assert Termination.parse(f"{end.to_json()}\n") == end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):",
        "[]",
        "{}",
        '{"reason": "Bored", "message": "", "exit_code": 1}',
        '{"reason": "StartFailed", "message": "cut of',
    ],
)
def test_what_no_server_wrote_is_no_termination(text: str) -> None:
    assert Termination.parse(text) is None


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (TerminationReason.START_FAILED, START_FAILED_EXIT_CODE),
        (TerminationReason.BUDGET_EXCEEDED, START_FAILED_EXIT_CODE),
        (TerminationReason.DEVICE_OUT_OF_MEMORY, DEVICE_OUT_OF_MEMORY_EXIT_CODE),
    ],
)
def test_a_failed_start_has_a_code_by_reason(reason: TerminationReason, code: int) -> None:
    assert Termination.of_start(reason, "why").exit_code == code


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
