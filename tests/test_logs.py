"""Logs of all processes, on a terminal and on a pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, warnings
import structlog
from dllm_server.settings import LogSettings
from dllm_server.logs import configure_logging
configure_logging(LogSettings.model_validate_json(sys.argv[1]))
structlog.get_logger("ours").info("engine ready", kv_pages=3)
logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
warnings.warn("old spelling", stacklevel=1)
try:
    prompt = "my secret"
    raise ValueError("broken on purpose")
except ValueError:
    structlog.get_logger("ours").exception("request failed")
"""

MESSAGES = ["engine ready", "Invalid HTTP request received.", "old spelling", "request failed"]


def log_of(*, is_terminal: bool, log_format: str = "auto", **environment: str) -> str:
    """What the program leaves on standard error."""
    command = [sys.executable, "-c", PROGRAM, json.dumps({"log_format": log_format})]
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    if not is_terminal:
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, env=env | environment).stderr
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stderr=theirs, env=env | environment)
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 65536):
            parts.append(part)
    except OSError:  # how a pseudoterminal says that nobody holds its other end
        pass
    finally:
        os.close(ours)
        process.wait()
    return b"".join(parts).decode()


@pytest.mark.parametrize(("log_format", "is_terminal"), [("auto", False), ("json", False), ("json", True)])
def test_logs_are_one_json_object_a_line_where_no_person_reads_them(
    log_format: str, is_terminal: bool
) -> None:
    text = log_of(is_terminal=is_terminal, log_format=log_format)

    entries = [json.loads(line) for line in text.splitlines()]
    assert len(entries) == len(MESSAGES)
    assert all(message in entry["event"] for message, entry in zip(MESSAGES, entries, strict=True))
    assert [entry["logger"] for entry in entries] == ["ours", "uvicorn.error", "py.warnings", "ours"]
    assert entries[0]["kv_pages"] == 3
    assert "broken on purpose" in entries[3]["exception"]


def test_a_terminal_gets_coloured_lines() -> None:
    text = log_of(is_terminal=True)

    assert all(message in text for message in MESSAGES)
    assert "\x1b[" in text
    assert '{"' not in text


@pytest.mark.parametrize(
    ("is_terminal", "environment"), [(True, {"NO_COLOR": "1"}), (False, {})], ids=["NO_COLOR", "pipe"]
)
def test_lines_for_people_have_no_colours_where_none_are_wanted(
    is_terminal: bool, environment: dict[str, str]
) -> None:
    text = log_of(is_terminal=is_terminal, log_format="console", **environment)

    assert all(message in text for message in MESSAGES)
    assert "\x1b[" not in text


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_traceback_shows_no_local_variables(is_terminal: bool) -> None:
    text = log_of(is_terminal=is_terminal)

    assert "broken on purpose" in text
    assert text.count("my secret") <= 1  # the line of code
    assert "prompt = 'my secret'" not in text
    assert "locals" not in text
