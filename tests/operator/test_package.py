from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("how", [["-c"], ["-P", "-c"]])
def test_the_standard_librarys_operator_is_not_shadowed_in_the_repository(how: list[str]) -> None:
    code = "import operator; print(operator.__file__, operator.itemgetter(0)([7]))"

    done = subprocess.run([sys.executable, *how, code], cwd=ROOT, capture_output=True, text=True, check=True)

    file, item = done.stdout.split()
    assert not Path(file).is_relative_to(ROOT / "operator")
    assert item == "7"


def test_the_operator_package_imports_without_torch() -> None:
    code = "import sys, dllm_operator; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


IMPORT_ALL = """
import importlib, pkgutil, sys, dllm_operator
for module in pkgutil.walk_packages(dllm_operator.__path__, "dllm_operator."):
    importlib.import_module(module.name)
print(*{name.split(".")[1] for name in sys.modules if name.startswith("dllm_server.")})
"""


def test_the_image_has_the_rooms_of_the_server_that_the_operator_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=True
    )

    dockerfile = (ROOT / "docker" / "operator.Dockerfile").read_text()
    copied = re.findall(r"^COPY server/dllm_server/(\w+) ", dockerfile, re.MULTILINE)
    rooms = {name for name in done.stdout.split() if (ROOT / "server" / "dllm_server" / name).is_dir()}
    assert rooms == set(copied)


def test_the_operator_directory_is_no_package() -> None:
    assert (ROOT / "operator").is_dir()
    assert not (ROOT / "operator" / "__init__.py").exists()
