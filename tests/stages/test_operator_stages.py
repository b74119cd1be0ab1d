"""``dllm-operator run`` told to stop before it leads: real processes, without an API server that answers."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.standing_still import DEADLINE_SECONDS, standing_still, until

RUN = ("-m", "dllm_operator.process.cli", "run", "--server-image", "server:1", "--http-port", "0")


@pytest.fixture
def silent_api_server(tmp_path: Path) -> Iterator[Path]:
    """The kubeconfig of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        named = {"cluster": "silent", "user": "nobody"}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "silent",
            "clusters": [{"name": "silent", "cluster": {"server": url}}],
            "users": [{"name": "nobody", "user": {"token": "none"}}],
            "contexts": [{"name": "silent", "context": named}],
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(config))
        yield path


@pytest.mark.parametrize(
    "stage",
    [
        "import:click",
        "import:kopf",
        "call:process/settings.py:pod_namespace",
    ],
)
def test_told_to_stop_while_it_imports_or_reads_settings_it_ends_with_0(stage: str, tmp_path: Path) -> None:
    with standing_still(RUN, stage, tmp_path) as operator:
        operator.send_signal(signal.SIGTERM)

        assert operator.wait(DEADLINE_SECONDS) == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_told_to_stop_while_it_waits_for_the_lease_it_ends_with_0(
    stop: signal.Signals, silent_api_server: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        operator = subprocess.Popen(
            [sys.executable, *RUN],
            stderr=stderr,
            env={"KUBECONFIG": str(silent_api_server), "PYTHONPATH": ":".join(filter(None, sys.path))},
        )
    try:
        until(lambda: "waiting for the lease" in log.read_text(), "it waits for the lease")
        operator.send_signal(stop)

        assert operator.wait(DEADLINE_SECONDS) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        operator.kill()
        operator.wait()
