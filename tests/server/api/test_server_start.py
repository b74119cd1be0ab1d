"""What keeps the server from starting is one line, said before the model is loaded."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest
from scripted_engine import FIXTURE


def start_and_fail(*flags: str) -> str:
    """The last log line's reason, after the server has given up."""
    command = [sys.executable, "-m", "dllm_server.cli", "serve", str(FIXTURE), "--host", "127.0.0.1", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "starting engine" not in ended.stderr
    entry = json.loads(ended.stderr.splitlines()[-1])
    assert entry["event"] == "cannot start"
    reason: str = entry["reason"]
    return reason


def test_a_port_in_use_is_named_with_what_helps() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert start_and_fail("--port", str(port)) == (
            f"cannot listen on 127.0.0.1:{port}: Address already in use: stop what listens there, "
            "or choose another --port"
        )


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_key_file_that_cannot_be_read_is_named(name: str) -> None:
    reason = start_and_fail("--port", "0", "--api-keys-file", str(FIXTURE / name))

    assert reason.startswith(f"api_keys_file {FIXTURE / name}: ")
