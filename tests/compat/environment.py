"""The environment that holds the third-party clients: a virtual environment of its own, since they and the
server pin different versions of the same libraries."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = Path(__file__).parent / "drivers"
ENVIRONMENT = Path(os.environ.get("COMPAT_ENVIRONMENT", ROOT / ".venv-compat"))
MODEL_DIRECTORY = ROOT / "server" / "dllm_server" / "models" / "embedded"
RUN_SECONDS = 480.0  # a run takes a tenth of it on an idle machine

MISSING = f"no clients in {ENVIRONMENT.name}: make install-compat"

# Variables under which a client would find our packages, or look for something on the network.
_HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OPENAI_BASE_URL", "OPENAI_API_BASE")


def is_installed() -> bool:
    return (ENVIRONMENT / "bin" / "python").exists()


def pinned() -> dict[str, str]:
    """Client -> version, as the extra ``compat`` names them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pairs = [line.split("==") for line in project["optional-dependencies"]["compat"]]
    return {name.partition("[")[0]: version for name, version in pairs}


@dataclass(frozen=True, slots=True)
class Clients:
    """Runs the clients' own programs, and small drivers of the client libraries, without a network.

    ``home`` takes whatever they cache.
    """

    home: Path

    def run(self, program: str, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """What a program of the environment prints; an assertion with all it said if it fails."""
        started = subprocess.Popen(
            [str(ENVIRONMENT / "bin" / program), *arguments],
            env=self._variables() | dict(variables or {}),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            printed, log = started.communicate(timeout=RUN_SECONDS)
        except BaseException:
            os.killpg(started.pid, signal.SIGKILL)  # with the workers that it has started
            printed, log = started.communicate()
            print(printed, log)
            raise
        assert started.returncode == 0, f"{program} ended with {started.returncode}:\n{printed}\n{log}"
        return printed

    def drive(self, driver: str, url: str, *arguments: str) -> Told:
        """The outcomes that ``drivers/DRIVER.py`` tells of the server at ``url``."""
        printed = self.run("python", str(DRIVERS / f"{driver}.py"), url, *arguments)
        return Told(json.loads(printed.splitlines()[-1]))

    def _variables(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
        return kept | {
            "HOME": str(self.home),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(self.home / "huggingface"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LANGSMITH_TRACING": "false",
            "GUIDELLM__MAX_WORKER_PROCESSES": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }


class Told:
    """Case -> its outcome, as ``drivers/outcomes.py`` prints them."""

    def __init__(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        self._outcomes = outcomes

    def answer(self, case: str) -> Any:
        outcome = self._outcomes[case]
        assert "error" not in outcome, f"{case}: {outcome['error']['kinds'][0]}: {outcome['error']['text']}"
        return outcome["answer"]

    def error(self, case: str) -> dict[str, Any]:
        outcome = self._outcomes[case]
        assert "error" in outcome, f"{case} was answered: {outcome['answer']}"
        error: dict[str, Any] = outcome["error"]
        return error
