"""``dllm bench`` against our API: its figures are those that the server counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from dllm_server.cli.commands import cli
from scripted_server import ScriptedServer


def test_our_server_says_how_long_requests_waited_and_counts_them_by_outcome(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    load = [
        "--api",
        "completions",
        "--clients",
        "3",
        "--requests",
        "30",
        "--max-tokens",
        "8",
        "--profile",
        "tiny",
    ]

    with ScriptedServer() as server:
        result = CliRunner().invoke(cli, ["bench", server.url, *load, "--json", str(path)])

    assert result.exit_code == 0, result.output
    (found,) = json.loads(path.read_text())["endpoints"]
    assert found["summary"]["queue"]["p99"] == 0.001  # as the scripted engine says
    assert found["summary"]["completion_tokens"] == 30 * 8
    shares = {pair["name"]: pair["difference"] for pair in found["server"]}
    for name in ("requests answered", "requests failed", "prompt tokens", "generated tokens"):
        assert shares[name] == 0, name
    assert shares["queue"] == pytest.approx(0, abs=1e-6)
    assert {"first block", "end to end"} <= shares.keys()
