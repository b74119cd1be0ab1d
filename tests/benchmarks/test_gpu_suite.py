"""The whole suite on toy shapes, and a part that fails between two that do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    "kernels",
    "experts",
    "agreement",
    "limits",
    "offline",
    "single",
    "prompts",
    "idle",
    "open-loop",
    "memory",
    "exact",
    "prefixes",
    "grammars",
)


def run_suite(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.sampled(0.33, of="benchmarks on toy shapes")
def test_a_tiny_run_measures_every_part_and_its_plots_are_drawn(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"

    run = run_suite("--tiny", "--output", str(output))
    plots = run_suite("--plots", str(tmp_path / "plots"), "--from", str(output))

    assert run.returncode == 0, run.stdout + run.stderr
    parts = json.loads(output.read_text())["parts"]
    assert tuple(parts) == PARTS
    assert {name: entry["error"] for name, entry in parts.items()} == dict.fromkeys(PARTS)
    lines = {f["line"] for entry in parts.values() for f in entry["figures"] if "line" in f}
    assert lines == {1, 3, 4, 6, 7, 8, 9}  # 2 and 5 are asked of full shapes only
    assert plots.returncode == 0, plots.stderr
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "batch_composition.png",
        "latency_cdf.png",
        "memory_by_owner.png",
        "throughput_against_load.png",
    }


@pytest.mark.sampled(0.33, of="benchmarks on toy shapes")
def test_a_part_that_fails_does_not_lose_the_others(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"

    run = run_suite(
        "--tiny", "--output", str(output), "--part", "limits", "agreement", "--set", "max_num_seqs=0"
    )

    parts = json.loads(output.read_text())["parts"]
    assert run.returncode == 1
    assert "max_num_seqs" in parts["limits"]["error"]
    assert parts["agreement"]["error"] is None


def test_an_empty_file_has_no_plots(tmp_path: Path) -> None:
    run = run_suite("--plots", str(tmp_path), "--from", str(tmp_path / "none.json"))

    assert run.returncode == 2
    assert "holds no part" in run.stdout
