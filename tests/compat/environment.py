"""Where the third-party clients are: in virtual environments of their own, since they, the server and
instructor pin different versions of the same libraries, and in a folder of npm's."""

from __future__ import annotations

import json
import os
import shutil
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
INSTRUCTOR = ENVIRONMENT.with_name(f"{ENVIRONMENT.name}-instructor")
NODE = Path(__file__).parent / "node"
MODEL_DIRECTORY = ROOT / "server" / "dllm_server" / "models" / "embedded"
RUN_SECONDS = 480.0  # a run takes a tenth of it on an idle machine

MISSING = f"no clients in {ENVIRONMENT.name}: make install-compat"
NO_NODE = "no clients of Node.js: install it and npm, then make install-compat"

# Variables under which a client would find our packages, or look for something on the network.
_HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OPENAI_BASE_URL", "OPENAI_API_BASE")


def is_installed() -> bool:
    return all((environment / "bin" / "python").exists() for environment in (ENVIRONMENT, INSTRUCTOR))


def has_node() -> bool:
    return shutil.which("node") is not None


def has_node_clients() -> bool:
    return has_node() and (NODE / "node_modules").exists()


def instructor_pinned() -> dict[str, str]:
    """All that is in the environment of instructor, with versions."""
    lines = (Path(__file__).parent / "instructor.txt").read_text().split()
    return dict(line.split("==") for line in lines)


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

    def run(
        self,
        program: str | Path,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        environment: Path = ENVIRONMENT,
    ) -> str:
        """What a program of the environment, or one by its path, prints; an assertion with all it said if it
        fails."""
        started = subprocess.Popen(
            [str(environment / "bin" / program), *arguments],
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

    def drive(self, driver: str, url: str, *arguments: str, environment: Path = ENVIRONMENT) -> Told:
        """The outcomes that ``drivers/DRIVER.py`` tells of the server at ``url``."""
        script = str(DRIVERS / f"{driver}.py")
        return _told(self.run("python", script, url, *arguments, environment=environment))

    def drive_node(self, driver: str, url: str, *arguments: str) -> Told:
        """Those of ``node/DRIVER.js``."""
        program = shutil.which("node")
        assert program is not None
        return _told(self.run(Path(program), str(NODE / f"{driver}.js"), url, *arguments))

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


def _told(printed: str) -> Told:
    return Told(json.loads(printed.splitlines()[-1]))


class Told:
    """Case -> its outcome, as ``drivers/outcomes.py`` prints them."""

    def __init__(self, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
        self._outcomes = outcomes

    def answers(self) -> dict[str, Any]:
        return {case: self.answer(case) for case in self._outcomes}

    def answer(self, case: str) -> Any:
        outcome = self._outcomes[case]
        assert "error" not in outcome, f"{case}: {outcome['error']['kinds'][0]}: {outcome['error']['text']}"
        return outcome["answer"]

    def error(self, case: str) -> dict[str, Any]:
        outcome = self._outcomes[case]
        assert "error" in outcome, f"{case} was answered: {outcome['answer']}"
        error: dict[str, Any] = outcome["error"]
        return error
