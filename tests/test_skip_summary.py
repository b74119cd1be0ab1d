"""The hooks in a run of pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skip_summary import NO_CLUSTER

ROOT = Path(__file__).parents[1]

TESTS = f"""
import pytest

@pytest.mark.parametrize("number", range(5))
def test_that_needs_a_cluster(number):
    pytest.skip({NO_CLUSTER!r})

def test_of_the_cluster_too():
    pytest.skip({NO_CLUSTER!r})

@pytest.mark.skipif(True, reason="no GPU")
def test_that_needs_a_gpu():
    pass

@pytest.mark.xfail(reason="not yet")
def test_of_the_future():
    raise AssertionError

def test_that_passes():
    pass
"""


def run_pytest(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_some.py").write_text(TESTS)
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -rfExX -p tests.skip_summary\n")
    inherited = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "CLUSTER", "PYTEST_ADDOPTS")}
    paths = os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        env=inherited | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
    )


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["one process", "xdist"])
def test_skips_are_one_line_a_reason_with_its_count(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = run_pytest(tmp_path, *arguments)

    lines = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED")]
    assert lines == [f"SKIPPED [6] {NO_CLUSTER}", "SKIPPED [1] no GPU"]
    assert "XFAIL test_some.py::test_of_the_future - not yet" in result.stdout
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("arguments", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["one process", "xdist"])
def test_a_cluster_that_is_offered_and_not_used_fails_the_run(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    result = run_pytest(tmp_path, *arguments, CLUSTER="tools/cluster")

    assert "FAILED: 6 tests found no cluster, but CLUSTER offers one" in result.stdout
    assert result.returncode == 1
