from __future__ import annotations

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


def test_the_operator_directory_is_no_package() -> None:
    assert (ROOT / "operator").is_dir()
    assert not (ROOT / "operator" / "__init__.py").exists()
