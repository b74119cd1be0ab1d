"""Rules about the tree that no linter knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("kernels", "server", "operator")
NAMELESS = {"utils.py", "helpers.py", "common.py", "misc.py", "util.py", "helper.py"}
MOST_LINES = 400
MOST_BYTES = 48 * 1024**2


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_product_file_is_longer_than_400_lines() -> None:
    files = [path for part in PRODUCT for path in (ROOT / part).rglob("*.py")]

    long = {str(path): len(path.read_text().splitlines()) for path in files}

    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_every_file_is_named_for_what_it_holds() -> None:
    folders = [
        ROOT / part for part in (*PRODUCT, "training", "tests", "benchmarks") if (ROOT / part).is_dir()
    ]

    assert [path for folder in folders for path in folder.rglob("*.py") if path.name in NAMELESS] == []


def test_tracked_files_stay_below_48_mebibytes_in_all() -> None:
    assert sum(path.stat().st_size for path in tracked_files() if path.is_file()) < MOST_BYTES
