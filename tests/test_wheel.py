"""The wheel: what is in it, and that it works outside of this checkout.

``WHEEL_INDEX=1`` lets it bring all its libraries from the package index, which takes minutes; else they are
those of the environment that runs the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.server.api.real_server import RealServer
from tests.test_structure import PRODUCT, tracked_files

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
EXTRAS = "server,operator"
MOST_BYTES = 21 * 1024**2
QUESTION = "State the final answer to the following arithmetic problem: 917 + 585 + 321 ="


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin/python")
    install = (*pip, "install", "--quiet")
    if os.environ.get("WHEEL_INDEX"):
        run(*install, "--constraint", ROOT / "constraints.txt", f"{wheel}[{EXTRAS}]")
        run(*pip, "check")
    else:
        run(*install, "--no-deps", wheel)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "libraries.pth").write_text(
            sysconfig.get_path("purelib")
        )  # not what its own .pth files name
    return folder / "bin"


def run(*command: str | Path) -> str:
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_tracked_file_of_the_packages_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    roots = [ROOT / part for part in PRODUCT]
    tracked = {
        str(path.relative_to(root)) for path in tracked_files() for root in roots if path.is_relative_to(root)
    }

    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert {name for name in packed if name.startswith("dllm_server/models/embedded/")}
    assert {name for name in packed if name.startswith("dllm_server/api/pages/")}
    assert packed == tracked
    assert wheel.stat().st_size < MOST_BYTES


def test_the_version_stands_in_pyproject_alone(wheel: Path, programs: Path) -> None:
    assert wheel.name.startswith(f"dllm_serve-{VERSION}-")
    assert run(programs / "dllm", "--version").strip().endswith(f" {VERSION}")


def test_the_packages_come_from_the_wheel(programs: Path) -> None:
    names = ["dllm_kernels", "dllm_operator", "dllm_server"]
    show = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"

    files = run(programs / "python", "-c", show, *names).split()

    assert len(files) == len(names)
    assert all(Path(file).is_relative_to(programs.parent) for file in files), files


def test_the_operator_of_the_wheel_prints_the_definition(programs: Path) -> None:
    assert run(programs / "dllm-operator", "crd") == next((ROOT / "crds").iterdir()).read_text()


def test_the_server_of_the_wheel_answers_from_its_own_model_and_shows_its_pages(programs: Path) -> None:
    with RealServer(model="embedded", program=[programs / "dllm"], environment={"PYTHONPATH": ""}) as server:
        assert server.http.get("/version").json()["version"] == VERSION
        for page in ("/", "/engine"):
            shown = server.http.get(page)
            assert shown.status_code == 200
            used = re.findall(r'(?:src|href)="(pages/[^"]+)"', shown.text)
            assert used
            assert {server.http.get(f"/{file}").status_code for file in used} == {200}
        message = {"role": "user", "content": QUESTION}
        answer = server.http.post("/v1/chat/completions", json={"messages": [message]}).json()

    assert answer["choices"][0]["message"]["content"] == "1823"
